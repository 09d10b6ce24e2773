"""The error a user can fix: wrong input, flag or file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where and what is allowed.

    Binaries print the message as one line and end with status 1, without a traceback.

    Examples:
      >>> from apparel_embed import load_prepared
      >>> try:
      ...     load_prepared("nothing/here")
      ... except UserError as error:
      ...     print(error)
      nothing/here: directory does not exist; ...
    """


def check_format(
    where: str | os.PathLike[str], what: str, record: Mapping[str, Any], version: int, remedy: str
) -> None:
    """Checks the format of something on disk that another release may have written.

    Args:
      where: it is.
      what: it is, in words.
      record: its content, with the format as `schema_version`.
      version: the format that this release reads.
      remedy: what the user can do.

    Raises:
      UserError: if it is of another format.
    """
    found = record.get("schema_version")
    if found != version:
        told = "without a format's number" if found is None else f"of format {found}"
        raise UserError(
            f"{where}: a {what} {told}, written by another release; this one reads and writes "
            f"format {version}; {remedy}"
        )
