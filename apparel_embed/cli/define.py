"""Defines single flags, and the flags of a configuration from the settings of its fields.

A flag belongs to a group in --help; for absl, the group is the module that defines the flag.
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
RARE = "Rarely needed"
# In the order in which --help shows them.
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
    RARE,
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
    rare: bool = False,
    group: str = WHAT,
) -> flags.FlagHolder[Any]:
    """Defines a flag whose type is that of its default.

    The values of a tuple are separated by commas, or given by repeating the flag if there are
    `choices`.

    Args:
      name: the flag's name.
      default: the value if the flag is not given, or None.
      what: the help text, without the range.
      low: smallest valid number, or smallest valid element of a tuple; None for text.
      high: largest valid value, or None for no limit.
      choices: all valid values of a text flag.
      kind: int, float, bool, str or tuple if there is no default; by default the type of `low`.
      repeat: whether this is a text flag that may be given several times.
      required: whether it must be given.
      rare: whether it is rarely needed, so that --help only lists its name.
      group: one of `GROUPS`.
    """
    if kind is None:
        kind = type(next((one for one in (default, low) if one is not None), ""))
    if kind is tuple and default is not None:
        default = [str(one) for one in default]
    options: dict[str, Any] = {"required": required, "module_name": RARE if rare else group}
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
            f"expected comma-separated whole numbers from {low} to {high}",
        )
    return holder


def _is_whole(text: str, low: float, high: float) -> bool:
    return text.isdecimal() and low <= int(text) <= high


def define_seed(what: str, *, group: str = WHAT) -> flags.FlagHolder[int]:
    """Defines --seed, with the same range in all binaries.

    Args:
      what: what the seed is for.
      group: one of `GROUPS`.
    """
    return define("seed", 0, f"seed of {what}", 0, LARGEST_SEED, group=group)


class ConfigFlags(Generic[_Config]):
    """The flags of a configuration: one for each field that has a `Setting`.

    Args:
      config: the dataclass.
      group: one of `GROUPS`, for fields that do not name another.
      defaults: the flags' defaults by field name, if different from those of the fields.
      prefix: prepended to the field names to form the flag names.
      only: the fields to define flags for; by default all.
      without: fields to define no flags for.
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
            setting = setting_of(field)
            if setting is None or field.name in without or (only and field.name not in only):
                continue
            value = defaults.get(field.name, field.default)
            self._flags[field.name] = define(
                setting.flag or prefix + field.name,
                str(value) if isinstance(value, Path) else value,
                setting.what,
                setting.low,
                setting.high,
                choices=setting.choices() if callable(setting.choices) else setting.choices,
                rare=setting.rare,
                group=setting.group or group,
            )
            self._readers[field.name] = _reader(str(field.type), value, setting.low)

    def is_given(self, name: str) -> bool:
        """Returns whether a field's flag is on the command line."""
        return self._flags[name].present

    def flag_of(self, name: str) -> str:
        """Returns the name of a field's flag."""
        return self._flags[name].name

    def values(self) -> dict[str, Any]:
        """Returns the flags' values, keyed by field name."""
        return {name: self._readers[name](flag.value) for name, flag in self._flags.items()}

    def config(self, **others: Any) -> _Config:
        """Returns the configuration.

        Args:
          **others: values of fields without flags, or overrides of flag values.
        """
        return self._config(**{**self.values(), **others})


class VariantFlags(Generic[_Config]):
    """The flags of a configuration whose variants have additional fields.

    Args:
      flag: the name of the flag that selects the variant.
      config: the dataclass.
      variants: the dataclass of each variant: `config` or a subclass of it.
      group: one of `GROUPS`.
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
          UserError: a flag of another variant is given.
        """
        wanted = self._variants[variant]
        for one, own in self._own.items():
            for name in own.values():
                if one is not wanted and own.is_given(name):
                    users = (name for name, kind in self._variants.items() if kind is one)
                    raise UserError(
                        f"--{own.flag_of(name)} does not apply to --{self._flag}={variant}; it is "
                        f"for --{self._flag}={', '.join(users)}"
                    )
        return self._own[wanted].config(**self.shared.values())


def _reader(annotation: str, default: Any, low: float | None) -> Callable[[Any], Any]:
    """Returns the function that converts a flag's value to its field's value."""
    if isinstance(default, tuple):
        return lambda values: tuple(values if low is None else map(int, values))
    if isinstance(default, Path):
        return lambda value: Path(value).expanduser()
    if annotation.startswith("Path"):
        return lambda value: Path(value) if value else None
    return lambda value: value
