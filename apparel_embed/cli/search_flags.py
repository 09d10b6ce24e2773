"""Flags of the index and of the search service."""

from __future__ import annotations

import os
from pathlib import Path

from absl import flags

from apparel_embed.data.pictures import LARGEST_MAX_PIXELS
from apparel_embed.errors import UserError
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.limits import Limits
from apparel_embed.search.searcher import answering_model
from apparel_embed.search.server import SearchSources
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
            "directory of one version of the SavedModel; by default, of those in "
            "<run_dir>/saved_model, the newest to index, and to search the one that the index "
            "answers with",
        )
        self._index_uri = flags.DEFINE_string(
            "index_uri",
            None,
            "file of the index, for Milvus Lite inside this process, or address of a Milvus server "
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

    @property
    def versions(self) -> Path:
        """Directory of the SavedModel's versions."""
        return self.run_dir / "saved_model"

    @property
    def named_model(self) -> Path | None:
        """The version that was named; None if none was."""
        return Path(self._saved_model.value) if self._saved_model.value else None

    def newest_model(self) -> Path:
        """Returns the directory of the version that was named, or else of the newest.

        Raises:
          UserError: if the run has none.
        """
        if self.named_model:
            return self.named_model
        versions = [path for path in self.versions.glob("*") if path.name.isdecimal()]
        if not versions:
            raise UserError(
                f"{self.versions}: no SavedModel; make one with tools/export_saved_model.py"
            )
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


class SourceFlags:
    """What is searched with and in.

    Args:
      run: names the run.
    """

    def __init__(self, run: SearchRunFlags) -> None:
        self._run = run
        self._serving_address = flags.DEFINE_string(
            "serving_address",
            "",
            "TensorFlow Serving that embeds instead of this process: host:port for gRPC, "
            "http://host:port for REST",
        )
        self._pictures = flags.DEFINE_string(
            "pictures",
            None,
            "directory that the pictures of an index made with --bulk are in; without, hits have "
            "no pictures",
        )

    def sources(self, index: VectorIndex) -> SearchSources:
        """Returns what is searched with and in.

        Args:
          index: tells by its version which model of the run is the right one.
        """
        return SearchSources(
            saved_model=self._run.named_model or answering_model(index, self._run.versions),
            prepared=self._run.prepared,
            pictures=Path(self._pictures.value) if self._pictures.value else None,
            serving_address=self._serving_address.value,
        )


class LimitFlags:
    """What the service allows."""

    def __init__(self) -> None:
        default = Limits()
        self._max_mb = flags.DEFINE_float(
            "max_upload_mb",
            default.max_bytes / 1e6,
            "of an upload, in MB (0.01 to 1000)",
            0.01,
            1e3,
        )
        self._max_pixels = flags.DEFINE_integer(
            "max_pixels",
            default.max_pixels,
            f"of an uploaded picture, told before it is decoded (1 to {LARGEST_MAX_PIXELS})",
            1,
            LARGEST_MAX_PIXELS,
        )
        self._rate = flags.DEFINE_float(
            "rate",
            default.rate,
            "searches per second that a client may make in the long run (0 to 1e6; 0 for any "
            "number)",
            0.0,
            1e6,
        )
        self._burst = flags.DEFINE_integer(
            "burst", default.burst, "searches that a client may make at once (1 or more)", 1
        )
        self._workers = flags.DEFINE_integer(
            "workers", default.workers, "searches worked on at once (1 to 256)", 1, 256
        )
        self._waiting = flags.DEFINE_integer(
            "waiting",
            default.waiting,
            "searches that may wait for a worker; more are refused with 503 (0 to 100000)",
            0,
            100_000,
        )
        self._upload_seconds = flags.DEFINE_float(
            "upload_seconds",
            default.upload_seconds,
            "how long an upload may take, in seconds (0.1 to 3600)",
            0.1,
            3600.0,
        )
        self._api_key_file = flags.DEFINE_string(
            "api_key_file",
            None,
            "file of a key that every request must bring in the header X-API-Key; by default none "
            "is needed",
        )

    def limits(self) -> Limits:
        """Returns what the service allows.

        Raises:
          UserError: if the key's file cannot be read or is empty.
        """
        return Limits(
            max_bytes=int(self._max_mb.value * 1e6),
            max_pixels=self._max_pixels.value,
            rate=self._rate.value,
            burst=self._burst.value,
            workers=self._workers.value,
            waiting=self._waiting.value,
            upload_seconds=self._upload_seconds.value,
            api_key=read_api_key(self._api_key_file.value),
        )


def read_api_key(path: str | None) -> str:
    """Returns the key in a file; "" without a file.

    Raises:
      UserError: if it cannot be read, or has no key.
    """
    if not path:
        return ""
    try:
        key = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api_key_file={path}: cannot be read as ASCII text: {error}") from error
    if not key:
        raise UserError(f"--api_key_file={path}: is empty; a key is needed")
    return key
