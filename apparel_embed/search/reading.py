"""Opens an index to search in it, beside a process that fills it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.search.index import VectorIndex


@contextlib.contextmanager
def open_to_read(uri: str, token: str = "") -> Iterator[VectorIndex]:
    """Opens an index to search in it, and leaves it free for others to read and to fill.

    Milvus Lite locks a file for one process, so that a copy is opened: what is written to the file
    afterwards is not seen.

    Args:
      uri: a file that is there, or a server.
      token: of a server.

    Raises:
      UserError: if it cannot be opened.
    """
    if "://" in uri:
        with VectorIndex(uri, token) as index:
            yield index
        return
    with tempfile.TemporaryDirectory(prefix="apparel_embed_index_") as directory:
        copy = Path(directory) / "index.db"
        try:
            file = f"{Path(uri).resolve().as_uri()}?mode=ro"
            with contextlib.ExitStack() as stack:
                source, target = (
                    stack.enter_context(contextlib.closing(sqlite3.connect(name, uri=True)))
                    for name in (file, copy.as_uri())
                )
                source.backup(target)
        except sqlite3.Error as error:
            raise UserError(
                f"{uri}: cannot be read as an index of this Milvus Lite ({error}); one made by "
                "another release is to be removed and built again"
            ) from error
        with VectorIndex(str(copy)) as index:
            yield index
