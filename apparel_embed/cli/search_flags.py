"""Flags of the index, and of the search service and its limits."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.common.errors import UserError
from apparel_embed.search.config import Limits, SearchSources
from apparel_embed.search.index import IndexAccess, VectorIndex, open_index
from apparel_embed.serving.exported import SAVED_MODEL, saved_model_versions

_SECRET = "MILVUS_PASSWORD"


class SearchRunFlags(RunFlags):
    """The run whose model and images are searched."""

    def __init__(self) -> None:
        super().__init__()
        self._saved_model = define(
            "saved_model",
            None,
            "directory of one version of the SavedModel; by default the newest in "
            f"<run_dir>/{SAVED_MODEL} for a new index, and the one that the index was built with "
            "for a search",
        )
        self._index_uri = define(
            "index_uri",
            None,
            "index file, or address of a Milvus server such as http://localhost:19530; by default "
            "<run_dir>/index.db",
        )
        self._access = ConfigFlags(IndexAccess, "Index", prefix="index_")
        self._password_file = define(
            "index_password_file",
            None,
            "file with the user's password or, without --index_user, an API key; by default "
            f"${_SECRET} is used",
            group="Index",
        )

    @property
    def again(self) -> dict[str, object]:
        """Flag values with which the next binary searches the same index."""
        named = {
            "saved_model": self._saved_model.value,
            "index_uri": self._index_uri.value,
            **{f"index_{name}": value for name, value in self._access.values().items()},
            "index_password_file": self._password_file.value,
        }
        return {**super().again, **{name: value or None for name, value in named.items()}}

    @property
    def versions(self) -> Path:
        """Directory of the SavedModel's versions."""
        return self.run_dir / SAVED_MODEL

    @property
    def named_model(self) -> Path | None:
        """Directory of the version that --saved_model names, or None."""
        return Path(self._saved_model.value) if self._saved_model.value else None

    def newest_model(self) -> Path:
        """Returns the directory of the version that --saved_model names, or of the newest one.

        Raises:
          UserError: the run has no SavedModel.
        """
        if self.named_model:
            return self.named_model
        versions = saved_model_versions(self.versions)
        if not versions:
            raise UserError(
                f"{self.versions}: no SavedModel; export one with tools/export_saved_model.py"
            )
        return versions[-1]

    @property
    def index_uri(self) -> str:
        """File or address of the index."""
        return self._index_uri.value or str(self.run_dir / "index.db")

    def index(self) -> AbstractContextManager[VectorIndex]:
        """Opens the index, or creates an empty one if none exists."""
        return open_index(self.index_uri, self._access_config())

    def filled_index(self, *, to_write: bool = False) -> AbstractContextManager[VectorIndex]:
        """Opens the existing index, read-only unless `to_write`.

        Raises:
          UserError: the index does not exist.
        """
        if self._is_missing():
            raise UserError(f"{self.index_uri}: no index; build one with tools/build_index.py")
        return self.index() if to_write else self._reading()

    def index_if_exists(self) -> AbstractContextManager[VectorIndex | None]:
        """Opens the index read-only; yields None if its file does not exist."""
        return contextlib.nullcontext() if self._is_missing() else self._reading()

    def _reading(self) -> AbstractContextManager[VectorIndex]:
        return open_index(self.index_uri, self._access_config(), to_read=True)

    def _access_config(self) -> IndexAccess:
        file = self._password_file.value
        secret = read_key(file, "index_password_file") if file else os.environ.get(_SECRET, "")
        return self._access.config(secret=secret)

    def _is_missing(self) -> bool:
        """Returns whether the index is a file that does not exist. Servers are not checked."""
        return "://" not in self.index_uri and not Path(self.index_uri).exists()


class SourceFlags:
    """Flags for the model and the images of a search.

    Args:
      run: flags that name the run.
    """

    def __init__(self, run: SearchRunFlags) -> None:
        self._run = run
        self._sources = ConfigFlags(SearchSources)

    def sources(self, index: VectorIndex) -> SearchSources:
        """Returns the model and the images to search with.

        Args:
          index: its version determines which of the run's models to use.
        """
        from apparel_embed.search.matching import answering_model  # Imports TensorFlow.

        return self._sources.config(
            saved_model=self._run.named_model or answering_model(index, self._run.versions),
            prepared=self._run.prepared,
        )


class LimitFlags:
    """Flags for the limits of the service."""

    def __init__(self) -> None:
        group = "Limits of the service"
        self._max_mb = define(
            "max_upload_mb", Limits.max_bytes / 1e6, "largest upload, in MB", 0.01, 1e3, group=group
        )
        self._limits = ConfigFlags(Limits, group)
        self._api_key_file = define(
            "api_key_file",
            None,
            "file with a key that every request must send in the header X-API-Key; by default no "
            "key is needed",
            group=group,
        )

    def limits(self) -> Limits:
        """Returns the limits of the service.

        Raises:
          UserError: the key file cannot be read or is empty.
        """
        return self._limits.config(
            max_bytes=int(self._max_mb.value * 1e6),
            api_key=read_key(self._api_key_file.value, "api_key_file"),
        )


def read_key(path: str | None, flag: str) -> str:
    """Returns the key in a file, or "" without a file.

    Raises:
      UserError: the file cannot be read or is empty.
    """
    if not path:
        return ""
    try:
        key = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--{flag}={path}: could not read ASCII text: {error}") from error
    if not key:
        raise UserError(f"--{flag}={path}: expected a key, got an empty file")
    return key
