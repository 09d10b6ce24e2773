"""Flags of how an index keeps vectors."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.search.index import INDEX_KINDS, IndexSettings


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
        self._numbers = {
            name: define_number(name, getattr(default, name), what, low, high)
            for name, what, low, high in (
                ("hnsw_m", "links of a vector in HNSW", 2, 2048),
                ("hnsw_ef_construction", "candidates while HNSW is built", 1, 32768),
                ("hnsw_ef", "candidates of a search in HNSW", 1, 32768),
                ("ivf_lists", "clusters of IVF_FLAT", 1, 65536),
                ("ivf_probes", "clusters that a search in IVF_FLAT looks through", 1, 65536),
            )
        }

    def settings(self) -> IndexSettings:
        """Returns how vectors are kept."""
        numbers = {name: flag.value for name, flag in self._numbers.items()}
        return IndexSettings(kind=self._kind.value, **numbers)
