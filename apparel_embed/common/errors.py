"""The error for mistakes a user can fix: a wrong input, flag or file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


class UserError(ValueError):
    """A mistake in the user's input; the message says what is wrong, where, and what is expected.

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
    """Checks the format version of data on disk that another release may have written.

    Args:
      where: path of the data, for the message.
      what: kind of data, for the message.
      record: content, with the format version as `schema_version`.
      version: format version that this release reads.
      remedy: what the user can do about it, for the message.

    Raises:
      UserError: if it has another format version.
    """
    found = record.get("schema_version")
    if found != version:
        written = "without a format version" if found is None else f"of format {found}"
        raise UserError(
            f"{where}: a {what} {written}, written by another release; this release reads and "
            f"writes format {version}; {remedy}"
        )
