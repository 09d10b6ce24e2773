"""Metadata of configuration fields: meaning, default, range and choices.

Flags are defined from it, and values are checked against it.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Union

from apparel_embed.common.errors import UserError

# All libraries accept seeds up to this one.
LARGEST_SEED = 2**31 - 1
_KEY = "setting"
# A callable defers the lookup of a table that is defined further down.
Choices = Union[Iterable[str], Callable[[], Iterable[str]]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Metadata of a field.

    Attributes:
      what: meaning, without the range.
      low: smallest value allowed; None if unlimited.
      high: largest value allowed; None if unlimited.
      choices: all values allowed, as text, or a function that returns them; empty if unrestricted.
      flag: name of its flag, if it differs from the field's.
      rare: whether its default suits nearly all users.
      group: group of flags that its flag belongs to; "" for the configuration's own group.
    """

    what: str
    low: float | None = None
    high: float | None = None
    choices: Choices = ()
    flag: str = ""
    rare: bool = False
    group: str = ""


def setting(
    default: Any,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Choices = (),
    flag: str = "",
    rare: bool = False,
    group: str = "",
) -> Any:
    """Returns a dataclass field with a default and a `Setting`.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     margin: float = setting(0.3, "margin of the loss", 0.0, 2.0)
      >>> Config().margin, setting_of(dataclasses.fields(Config)[0]).what
      (0.3, 'margin of the loss')
    """
    metadata = {_KEY: Setting(what, low, high, choices, flag, rare, group)}
    return dataclasses.field(default=default, metadata=metadata)


def seed_setting(what: str, *, flag: str = "", rare: bool = False) -> Any:
    """Returns a field for a seed, with the range that all seeds have.

    Args:
      what: what the seed is used for.
      flag: as in `Setting`.
      rare: as in `Setting`.
    """
    return setting(0, f"seed of {what}", 0, LARGEST_SEED, flag=flag, rare=rare)


def same_as(config: type[Any], name: str, also: str = "") -> Any:
    """Returns a field with the default and `Setting` of another dataclass's field.

    Args:
      config: the other dataclass.
      name: name of its field.
      also: text to append to the meaning.
    """
    field = config.__dataclass_fields__[name]
    copied: Setting = field.metadata[_KEY]
    copied = dataclasses.replace(copied, what=copied.what + also)
    return dataclasses.field(default=field.default, metadata={_KEY: copied})


def setting_of(field: dataclasses.Field[Any]) -> Setting | None:
    """Returns the `Setting` of a field; None if it has none."""
    return field.metadata.get(_KEY)


def flag_names(config: Any) -> dict[str, str]:
    """Returns the flag of each field of a configuration; nested fields are named `outer.inner`.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     batch: int = setting(64, "images in a batch", 1, flag="batch_size")
      >>> flag_names(Config())
      {'batch': '--batch_size'}
    """
    names = {}
    for field in dataclasses.fields(config):
        value, found = getattr(config, field.name), setting_of(field)
        if dataclasses.is_dataclass(value):
            inner = flag_names(value).items()
            names.update({f"{field.name}.{name}": flag for name, flag in inner})
        elif found:
            names[field.name] = f"--{found.flag or field.name}"
    return names


def range_text(low: float | None, high: float | None) -> str:
    """Returns the range of a number in words; "" if every number is allowed.

    Examples:
      >>> range_text(1, None), range_text(0.0, 0.9), range_text(0, LARGEST_SEED)
      ('1 or more', '0 to 0.9', '0 to 2^31 - 1')
    """
    if low is None:
        return ""
    return (
        f"{_number_text(low)} or more"
        if high is None
        else f"{_number_text(low)} to "
        + ("2^31 - 1" if high == LARGEST_SEED else _number_text(high))
    )


def _number_text(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def check_settings(config: Any) -> None:
    """Checks the numbers of a dataclass; None is always allowed.

    Raises:
      UserError: if a number is out of its field's range, or is not whole in an `int` field.
    """
    for field in dataclasses.fields(config):
        found, value = setting_of(field), getattr(config, field.name)
        if found is None or found.low is None or value is None or isinstance(value, tuple):
            continue
        whole = str(field.type).startswith("int")
        valid = isinstance(value, numbers.Integral if whole else numbers.Real)
        valid = valid and not isinstance(value, bool) and found.low <= value
        if not valid or (found.high is not None and value > found.high):
            raise UserError(
                f"{field.name} is {value!r}; expected {'a whole number, ' * whole}"
                f"{range_text(found.low, found.high)}"
            )
