"""Flags of how an index keeps vectors."""

from __future__ import annotations

from absl import flags

from apparel_embed.search.version import INDEX_KINDS, IndexSettings


class IndexFlags:
    """How vectors are kept."""

    def __init__(self) -> None:
        default = IndexSettings()
        self._kind = flags.DEFINE_enum(
            "index_kind",
            default.kind,
            INDEX_KINDS,
            "FLAT looks at every vector and misses none; IVF_FLAT and HNSW look at some",
        )
        self._m = flags.DEFINE_integer(
            "hnsw_m", default.hnsw_m, "links of a vector in HNSW (2 to 2048)", 2, 2048
        )
        self._ef_construction = flags.DEFINE_integer(
            "hnsw_ef_construction",
            default.hnsw_ef_construction,
            "candidates while HNSW is built (1 to 32768)",
            1,
            32768,
        )
        self._ef = flags.DEFINE_integer(
            "hnsw_ef", default.hnsw_ef, "candidates of a search in HNSW (1 to 32768)", 1, 32768
        )
        self._lists = flags.DEFINE_integer(
            "ivf_lists", default.ivf_lists, "clusters of IVF_FLAT (1 to 65536)", 1, 65536
        )
        self._probes = flags.DEFINE_integer(
            "ivf_probes",
            default.ivf_probes,
            "clusters that a search in IVF_FLAT looks through (1 to 65536)",
            1,
            65536,
        )

    def settings(self) -> IndexSettings:
        """Returns how vectors are kept."""
        return IndexSettings(
            kind=self._kind.value,
            hnsw_m=self._m.value,
            hnsw_ef_construction=self._ef_construction.value,
            hnsw_ef=self._ef.value,
            ivf_lists=self._lists.value,
            ivf_probes=self._probes.value,
        )
