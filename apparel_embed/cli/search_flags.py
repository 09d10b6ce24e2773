"""Flags of the index and of the search service."""

from __future__ import annotations

import os
from pathlib import Path

from absl import flags

from apparel_embed.errors import UserError
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.version import INDEX_KINDS, IndexSettings

_TOKEN = "MILVUS_TOKEN"


class SearchRunFlags:
    """The run whose model and pictures are searched."""

    def __init__(self) -> None:
        self._run_dir = flags.DEFINE_string(
            "run_dir", None, "directory of the run whose model and dataset are used", required=True
        )
        self._prepared = flags.DEFINE_string(
            "prepared", None, "prepared dataset; by default <run_dir>/prepared"
        )
        self._saved_model = flags.DEFINE_string(
            "saved_model",
            None,
            "directory of one version of the SavedModel; by default the latest in "
            "<run_dir>/saved_model",
        )
        self._index_uri = flags.DEFINE_string(
            "index_uri",
            None,
            "file of the index, for Milvus Lite inside this process, or address of a Milvus server, "
            f"such as http://localhost:19530 (user:password or key in ${_TOKEN}); by default "
            "<run_dir>/index.db",
        )

    @property
    def run_dir(self) -> Path:
        """Directory of the run."""
        return Path(self._run_dir.value)

    @property
    def prepared(self) -> Path:
        """Directory of the prepared dataset."""
        return Path(self._prepared.value or self.run_dir / "prepared")

    def saved_model(self) -> Path:
        """Returns the directory of one version of the SavedModel.

        Raises:
          UserError: if the run has none.
        """
        if self._saved_model.value:
            return Path(self._saved_model.value)
        base = self.run_dir / "saved_model"
        versions = [path for path in base.glob("*") if path.name.isdecimal()]
        if not versions:
            raise UserError(f"{base}: no SavedModel; make one with tools/export_saved_model.py")
        return max(versions, key=lambda path: int(path.name))

    def index(self) -> VectorIndex:
        """Opens the index."""
        uri = self._index_uri.value or str(self.run_dir / "index.db")
        return VectorIndex(uri, os.environ.get(_TOKEN, ""))


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
