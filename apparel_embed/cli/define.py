"""Flags: single ones, and those of a configuration, made of what its fields say of themselves.

A flag belongs to a group of --help, which absl knows as the module that defines it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from absl import flags

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import LARGEST_SEED, range_text, setting_of

WHAT = "What to work on"
DATA = "Images and splits"
MODEL = "Model"
TRAINING = "Training"
EVALUATION = "Evaluation and report"
SERVED = "Served model"
WHERE = "Where it runs"
SELDOM = "Seldom needed"
# As --help shows them.
GROUPS = (
    WHAT,
    "Synthetic garments",
    DATA,
    "Groups of verticals",
    MODEL,
    TRAINING,
    "Augmentation",
    "Targets of the student",
    EVALUATION,
    SERVED,
    "Index",
    "Limits of the service",
    WHERE,
    SELDOM,
)

_Config = TypeVar("_Config")


def define(
    name: str,
    default: Any,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Iterable[str] = (),
    kind: type | None = None,
    repeat: bool = False,
    required: bool = False,
    seldom: bool = False,
    group: str = WHAT,
) -> flags.FlagHolder[Any]:
    """Defines a flag of the kind of its default.

    Tuples are given with commas between their values, or by repeating the flag where there are
    `choices`.

    Args:
      name: of the flag.
      default: its value if it is not given; None for none.
      what: its help, without the range.
      low: least value allowed of a number, or of each in a tuple; None for text.
      high: greatest value allowed; None if there is none.
      choices: all values allowed, of text.
      kind: int, float, bool, str or tuple where there is no default; by default as `low`.
      repeat: whether it is a text that may be given several times.
      required: whether it must be given.
      seldom: whether its default is good for nearly all: --help only names it.
      group: of `GROUPS`.
    """
    if kind is None:
        kind = type(next((one for one in (default, low) if one is not None), ""))
    if kind is tuple and default is not None:
        default = [str(one) for one in default]
    options: dict[str, Any] = {"required": required, "module_name": SELDOM if seldom else group}
    make: Callable[..., flags.FlagHolder[Any]]
    if kind in (int, float):
        make = flags.DEFINE_float if kind is float else flags.DEFINE_integer
        options |= {"lower_bound": low, "upper_bound": high}
        what += f" ({range_text(low, high)})" if low is not None else ""
    elif choices:
        make = flags.DEFINE_multi_enum if kind is tuple else flags.DEFINE_enum
        options["enum_values"] = list(choices)
    elif kind is tuple:
        make = flags.DEFINE_list
        what += f", each {range_text(low, high)}" if low is not None else ""
    elif kind is bool:
        make = flags.DEFINE_bool
    else:
        make = flags.DEFINE_multi_string if repeat else flags.DEFINE_string
    holder = make(name, default=default, help=what, **options)
    if kind is tuple and low is not None and high is not None:
        flags.register_validator(
            name,
            lambda values: bool(values) and all(_is_whole(one, low, high) for one in values),
            f"expected whole numbers from {low} to {high}, with commas between them",
        )
    return holder


def _is_whole(text: str, low: float, high: float) -> bool:
    return text.isdecimal() and low <= int(text) <= high


def define_seed(what: str, *, group: str = WHAT) -> flags.FlagHolder[int]:
    """Defines --seed, of the same range in all binaries.

    Args:
      what: it is the seed of.
      group: of `GROUPS`.
    """
    return define("seed", 0, f"seed of {what}", 0, LARGEST_SEED, group=group)


class ConfigFlags(Generic[_Config]):
    """The flags of a configuration: one for each field that says of itself what it is.

    Args:
      config: the dataclass.
      group: of `GROUPS`, where the field says no other.
      defaults: of flags, by the names of fields, where they are not those of the fields.
      prefix: what names of fields have before them to be those of flags.
      only: the fields to define flags of; by default all.
      without: fields to define no flags of.
    """

    def __init__(
        self,
        config: type[_Config],
        group: str = WHAT,
        *,
        defaults: Mapping[str, Any] = MappingProxyType({}),
        prefix: str = "",
        only: Collection[str] = (),
        without: Collection[str] = (),
    ) -> None:
        self._config = config
        self._flags: dict[str, flags.FlagHolder[Any]] = {}
        self._readers: dict[str, Callable[[Any], Any]] = {}
        for field in dataclasses.fields(cast(Any, config)):
            said = setting_of(field)
            if said is None or field.name in without or (only and field.name not in only):
                continue
            value = defaults.get(field.name, field.default)
            self._flags[field.name] = define(
                said.flag or prefix + field.name,
                str(value) if isinstance(value, Path) else value,
                said.what,
                said.low,
                said.high,
                choices=said.choices() if callable(said.choices) else said.choices,
                seldom=said.seldom,
                group=said.group or group,
            )
            self._readers[field.name] = _reader(str(field.type), value, said.low)

    def is_given(self, name: str) -> bool:
        """Returns whether the flag of a field is on the command line."""
        return self._flags[name].present

    def flag_of(self, name: str) -> str:
        """Returns the name of the flag of a field."""
        return self._flags[name].name

    def values(self) -> dict[str, Any]:
        """Returns the flags' values, by the names of fields."""
        return {name: self._readers[name](flag.value) for name, flag in self._flags.items()}

    def config(self, **others: Any) -> _Config:
        """Returns the configuration.

        Args:
          **others: values of fields without flags, or in place of their flags' ones.
        """
        return self._config(**{**self.values(), **others})


class VariantFlags(Generic[_Config]):
    """The flags of a configuration of which variants have fields of their own.

    Args:
      flag: that names the variant.
      config: the dataclass.
      variants: the dataclass of each, `config` or a subclass of it.
      group: of `GROUPS`.
    """

    def __init__(
        self,
        flag: str,
        config: type[_Config],
        variants: Mapping[str, type[_Config]],
        group: str = WHAT,
    ) -> None:
        shared = [field.name for field in dataclasses.fields(cast(Any, config))]
        self._flag, self._variants = flag, variants
        self.shared = ConfigFlags(config, group)
        self._own = {
            one: ConfigFlags(one, group, without=shared) for one in dict.fromkeys(variants.values())
        }

    def config(self, variant: str) -> _Config:
        """Returns the configuration of a variant.

        Raises:
          UserError: if a flag of another one is given.
        """
        wanted = self._variants[variant]
        for one, own in self._own.items():
            for name in own.values():
                if one is not wanted and own.is_given(name):
                    users = (name for name, kind in self._variants.items() if kind is one)
                    raise UserError(
                        f"--{own.flag_of(name)} with --{self._flag}={variant}: it is for "
                        f"--{self._flag}={', '.join(users)}"
                    )
        return self._own[wanted].config(**self.shared.values())


def _reader(annotation: str, default: Any, low: float | None) -> Callable[[Any], Any]:
    """Returns what makes a field's value of that of its flag."""
    if isinstance(default, tuple):
        return lambda values: tuple(values if low is None else map(int, values))
    if isinstance(default, Path):
        return lambda value: Path(value).expanduser()
    if annotation.startswith("Path"):
        return lambda value: Path(value) if value else None
    return lambda value: value
