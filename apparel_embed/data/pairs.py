"""Pairs as flags give them: `name:value`."""

from __future__ import annotations

from collections.abc import Sequence

from apparel_embed.common.errors import UserError


def parse_pairs(
    flag: str, entries: Sequence[str], *, allowed: str, what: str, at_last_colon: bool = False
) -> dict[str, str]:
    """Reads pairs; spaces around names and values do not count.

    Args:
      flag: name of the flag that they come from.
      entries: each `name:value`; the value may be empty.
      allowed: what an entry is to be like, for the message.
      what: what is named, for the message.
      at_last_colon: names may hold colons, values may not; else the other way round.

    Returns:
      Values by names, in their order.

    Raises:
      UserError: an entry without a colon or a name, or a name that is there twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        parts = entry.rpartition(":") if at_last_colon else entry.partition(":")
        name, colon, value = (part.strip() for part in parts)
        if not colon or not name:
            raise UserError(f"--{flag}: {entry!r} is not allowed; {allowed}")
        if name in pairs:
            raise UserError(f"--{flag}: {name!r} is there twice; name each {what} once")
        pairs[name] = value
    return pairs
