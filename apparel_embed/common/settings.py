"""What the fields of configurations say of themselves: meaning, default, range and choices.

Flags are made of it, and values are checked by it.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Union

from apparel_embed.common.errors import UserError

# Every library takes seeds up to here.
LARGEST_SEED = 2**31 - 1
_KEY = "setting"
# A table that stands further down is asked for when it is there.
Choices = Union[Iterable[str], Callable[[], Iterable[str]]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field says of itself.

    Attributes:
      what: its meaning, without the range.
      low: least value allowed; None if there is none.
      high: greatest value allowed; None if there is none.
      choices: all values allowed, of text, or what returns them; empty if there are others.
      flag: name of its flag, where it is not that of the field.
      seldom: whether its default is good for nearly all.
      group: of flags that its flag belongs to; "" for that of the configuration.
    """

    what: str
    low: float | None = None
    high: float | None = None
    choices: Choices = ()
    flag: str = ""
    seldom: bool = False
    group: str = ""


def setting(
    default: Any,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Choices = (),
    flag: str = "",
    seldom: bool = False,
    group: str = "",
) -> Any:
    """Returns a dataclass's field with a default and a `Setting`.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     margin: float = setting(0.3, "margin of the loss", 0.0, 2.0)
      >>> Config().margin, setting_of(dataclasses.fields(Config)[0]).what
      (0.3, 'margin of the loss')
    """
    said = Setting(what, low, high, choices, flag, seldom, group)
    return dataclasses.field(default=default, metadata={_KEY: said})


def seed_setting(what: str, *, flag: str = "", seldom: bool = False) -> Any:
    """Returns the field of a seed, of the range that all seeds have.

    Args:
      what: it is the seed of.
      flag: as in `Setting`.
      seldom: as in `Setting`.
    """
    return setting(0, f"seed of {what}", 0, LARGEST_SEED, flag=flag, seldom=seldom)


def same_as(config: type[Any], name: str, also: str = "") -> Any:
    """Returns a field that is as that of another dataclass.

    Args:
      config: the other dataclass.
      name: of its field.
      also: what the meaning is followed by.
    """
    field = config.__dataclass_fields__[name]
    said = field.metadata[_KEY]
    said = dataclasses.replace(said, what=said.what + also)
    return dataclasses.field(default=field.default, metadata={_KEY: said})


def setting_of(field: dataclasses.Field[Any]) -> Setting | None:
    """Returns what a field says of itself; None if it says nothing."""
    return field.metadata.get(_KEY)


def flag_names(config: Any) -> dict[str, str]:
    """Returns the flags of a configuration by the names of its fields, nested ones `outer.inner`.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     batch: int = setting(64, "images in a batch", 1, flag="batch_size")
      >>> flag_names(Config())
      {'batch': '--batch_size'}
    """
    names = {}
    for field in dataclasses.fields(config):
        value, said = getattr(config, field.name), setting_of(field)
        if dataclasses.is_dataclass(value):
            inner = flag_names(value).items()
            names.update({f"{field.name}.{name}": flag for name, flag in inner})
        elif said:
            names[field.name] = f"--{said.flag or field.name}"
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
      UserError: if one is out of the range of its field, or is not whole where that is an
        `int`.
    """
    for field in dataclasses.fields(config):
        said, value = setting_of(field), getattr(config, field.name)
        if said is None or said.low is None or value is None or isinstance(value, tuple):
            continue
        whole = str(field.type).startswith("int")
        right = isinstance(value, numbers.Integral if whole else numbers.Real)
        right = right and not isinstance(value, bool) and said.low <= value
        if not right or (said.high is not None and value > said.high):
            raise UserError(
                f"{field.name} is {value!r}; expected {'a whole number, ' * whole}"
                f"{range_text(said.low, said.high)}"
            )
