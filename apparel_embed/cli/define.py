"""Flags of numbers, whose help tells their range."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from absl import flags

# The modules that call these define the flags, so that help shows them with their others.
flags.disclaim_key_flags()

LARGEST_SEED = 2**31 - 1

_Number = TypeVar("_Number", int, float)


def define_number(
    name: str, default: _Number | None, what: str, low: _Number, high: float | None = None
) -> flags.FlagHolder[_Number]:
    """Defines a number, whole if its default is, with a range.

    Args:
      name: of the flag.
      default: its value if it is not given; None for none, it is then whole if `low` is.
      what: its help, without the range.
      low: least value allowed.
      high: greatest value allowed; None if there is none.
    """
    define: Callable[..., flags.FlagHolder] = (
        flags.DEFINE_float
        if isinstance(low if default is None else default, float)
        else flags.DEFINE_integer
    )
    allowed = f"{_told(low)} or more" if high is None else f"{_told(low)} to {_told(high)}"
    return define(name, default, f"{what} ({allowed})", lower_bound=low, upper_bound=high)


def define_seed(what: str, name: str = "seed", default: int = 0) -> flags.FlagHolder[int]:
    """Defines a seed, of the same range in all binaries: every library takes those.

    Args:
      what: it is the seed of.
      name: of the flag.
      default: its value if it is not given.
    """
    return flags.DEFINE_integer(
        name,
        default,
        f"seed of {what} (0 to 2^31 - 1)",
        lower_bound=0,
        upper_bound=LARGEST_SEED,
    )


def _told(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


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
