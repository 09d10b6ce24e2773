"""Flags of the index, of the search service and of what it allows."""

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
            f"<run_dir>/{SAVED_MODEL} for a new index, and for a search the one that the index was "
            "made with",
        )
        self._index_uri = define(
            "index_uri",
            None,
            "file of the index, or address of a Milvus server such as http://localhost:19530; by "
            "default <run_dir>/index.db",
        )
        self._access = ConfigFlags(IndexAccess, "Index", prefix="index_")
        self._password_file = define(
            "index_password_file",
            None,
            "file that holds the user's password, or without --index_user an API key; by default "
            f"it is taken from ${_SECRET}",
            group="Index",
        )

    @property
    def again(self) -> dict[str, object]:
        """What the next binary is to be given so that it searches the same."""
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
        """The version that was named; None if none was."""
        return Path(self._saved_model.value) if self._saved_model.value else None

    def newest_model(self) -> Path:
        """Returns the directory of the version that was named, or else of the newest.

        Raises:
          UserError: if the run has none.
        """
        if self.named_model:
            return self.named_model
        versions = saved_model_versions(self.versions)
        if not versions:
            raise UserError(
                f"{self.versions}: no SavedModel; make one with tools/export_saved_model.py"
            )
        return versions[-1]

    @property
    def index_uri(self) -> str:
        """File or address of the index."""
        return self._index_uri.value or str(self.run_dir / "index.db")

    def index(self) -> AbstractContextManager[VectorIndex]:
        """Opens the index; makes an empty one where there is none."""
        return open_index(self.index_uri, self._who())

    def filled_index(self, *, to_write: bool = False) -> AbstractContextManager[VectorIndex]:
        """Opens the index to search in it, and only on demand to change it.

        Raises:
          UserError: if there is none.
        """
        if self._is_missing():
            raise UserError(f"{self.index_uri}: no index; tools/build_index.py makes one")
        return self.index() if to_write else self._reading()

    def index_if_there(self) -> AbstractContextManager[VectorIndex | None]:
        """Opens the index to read it, without making a file where there is none."""
        return contextlib.nullcontext() if self._is_missing() else self._reading()

    def _reading(self) -> AbstractContextManager[VectorIndex]:
        return open_index(self.index_uri, self._who(), to_read=True)

    def _who(self) -> IndexAccess:
        file = self._password_file.value
        secret = read_key(file, "index_password_file") if file else os.environ.get(_SECRET, "")
        return self._access.config(secret=secret)

    def _is_missing(self) -> bool:
        """Returns whether the index is a file that is not there; of servers that is not known."""
        return "://" not in self.index_uri and not Path(self.index_uri).exists()


class SourceFlags:
    """What is searched with and in.

    Args:
      run: names the run.
    """

    def __init__(self, run: SearchRunFlags) -> None:
        self._run = run
        self._sources = ConfigFlags(SearchSources)

    def sources(self, index: VectorIndex) -> SearchSources:
        """Returns what is searched with and in.

        Args:
          index: its version shows which model of the run is the right one.
        """
        from apparel_embed.search.matching import answering_model  # Imports TensorFlow.

        return self._sources.config(
            saved_model=self._run.named_model or answering_model(index, self._run.versions),
            prepared=self._run.prepared,
        )


class LimitFlags:
    """What the service allows."""

    def __init__(self) -> None:
        group = "Limits of the service"
        self._max_mb = define(
            "max_upload_mb", Limits.max_bytes / 1e6, "of an upload, in MB", 0.01, 1e3, group=group
        )
        self._limits = ConfigFlags(Limits, group)
        self._api_key_file = define(
            "api_key_file",
            None,
            "file of a key that every request must send in the header X-API-Key; by default none "
            "is needed",
            group=group,
        )

    def limits(self) -> Limits:
        """Returns what the service allows.

        Raises:
          UserError: if the key's file cannot be read or is empty.
        """
        return self._limits.config(
            max_bytes=int(self._max_mb.value * 1e6),
            api_key=read_key(self._api_key_file.value, "api_key_file"),
        )


def read_key(path: str | None, flag: str) -> str:
    """Returns the key in a file; "" without a file.

    Raises:
      UserError: if it cannot be read, or has no key.
    """
    if not path:
        return ""
    try:
        key = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--{flag}={path}: cannot be read as ASCII text: {error}") from error
    if not key:
        raise UserError(f"--{flag}={path}: is empty; a key is needed")
    return key
