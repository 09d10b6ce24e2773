"""Flags of numbers, whose help tells their range."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from absl import flags

# The modules that call these define the flags, so that help shows them with their others.
flags.disclaim_key_flags()

_Number = TypeVar("_Number", int, float)


def define_number(
    name: str, default: _Number, what: str, low: float, high: float
) -> flags.FlagHolder[_Number]:
    """Defines a number, whole if its default is, with a range.

    Args:
      name: of the flag.
      default: its value if it is not given.
      what: its help, without the range.
      low: least value allowed.
      high: greatest value allowed.
    """
    define: Callable[..., flags.FlagHolder] = (
        flags.DEFINE_float if isinstance(default, float) else flags.DEFINE_integer
    )
    return define(name, default, f"{what} ({low} to {high})", lower_bound=low, upper_bound=high)


def define_whole_numbers(
    name: str, default: list[str], what: str, low: int, high: int
) -> flags.FlagHolder[list[str]]:
    """Defines a list of whole numbers, each within a range; see `define_number`."""
    holder = flags.DEFINE_list(name, default, f"{what}, each {low} to {high}")
    flags.register_validator(
        name,
        lambda values: (
            bool(values)
            and all(value.isdecimal() and low <= int(value) <= high for value in values)
        ),
        f"allowed are whole numbers from {low} to {high}, with commas between them",
    )
    return holder
