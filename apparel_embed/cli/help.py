"""What --help and --helpfull show: the binary's docstring, then its flags in groups.

A flag belongs to the group of the module that defines it. Groups and their order are named here.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator

from absl import flags

_FIRST = "What to work on"
_WHERE = "Where it runs"
# Of the modules of this package that define flags, the groups. Those of others, and the binary's
# own, come first.
_GROUPS = {
    "synthetic_flags": "Synthetic garments",
    "data_flags": "Pictures and splits",
    "grouping_flags": "Groups of verticals",
    "model_flags": "Model",
    "training_flags": "Training",
    "augment_flags": "Augmentation",
    "target_flags": "Targets of the student",
    "evaluation_flags": "Evaluation and report",
    "serving_flags": "Served model",
    "index_flags": "Index",
    "service_flags": "Limits of the service",
    "execution_flags": _WHERE,
    "machine_flags": _WHERE,
}
_SELDOM = "Seldom needed"
# What has a default that is good for nearly all.
SELDOM_NEEDED = frozenset(
    {
        "affinity_threshold",
        "align_to",
        "augment_brightness",
        "augment_contrast",
        "augment_erase",
        "augment_hue",
        "augment_rotation",
        "augment_saturation",
        "batch_norm_momentum",
        "burst",
        "cache_gib",
        "checkpoint_every",
        "combined_learning_rate",
        "combined_seeds",
        "crop_margin",
        "distance",
        "frozen_views",
        "hnsw_ef_construction",
        "ivf_lists",
        "ivf_probes",
        "jit_compile",
        "jpeg_quality",
        "keep_checkpoints",
        "log_every",
        "max_pixels",
        "max_side",
        "optimizer",
        "pattern_column",
        "pooling",
        "profile_steps",
        "scale_learning_rate",
        "patience",
        "serving_max_pixels",
        "shard_pictures",
        "shard_records",
        "single_specialists",
        "small_verticals",
        "specialist_frozen_steps",
        "specialist_start",
        "split_seed",
        "standardise_targets",
        "student_frozen_steps",
        "student_loss",
        "student_start",
        "student_vertical_weights",
        "sync_batch_norm",
        "synthetic_gallery_per_item",
        "synthetic_image_size",
        "synthetic_query_per_item",
        "synthetic_seed",
        "synthetic_unlabelled_items",
        "train_backbone",
        "upload_seconds",
        "waiting",
        "warm_up",
        "warmup_fraction",
        "weight_decay",
    }
)
_NAMES_WIDTH = 27
_WIDEST = 100


def define_help_flags(main_module: str) -> None:
    """Puts --help and --helpfull in the place of absl's, which list flags module by module.

    Args:
      main_module: name that absl knows the binary's own module by, `sys.argv[0]`.
    """
    for name, short_name, full in (
        ("help", "?", False),
        ("helpshort", None, False),
        ("helpfull", None, True),
    ):
        flags.DEFINE_flag(_HelpFlag(name, short_name, main_module, full))


class _HelpFlag(flags.BooleanFlag):
    """Shows help and ends the binary, as absl's own does."""

    def __init__(self, name: str, short_name: str | None, main_module: str, full: bool) -> None:
        what = "explain all flags, those of libraries too" if full else "show the flags, in groups"
        super().__init__(name, False, what, short_name=short_name, allow_override=True)
        self._main_module, self._full = main_module, full

    def parse(self, argument: str | bool) -> None:
        """Shows help if it is asked for."""
        if not self._parse(argument):
            return
        own = own_flags(self._main_module)
        print(help_text(sys.modules["__main__"].__doc__ or "", own, full=self._full))
        if self._full:
            print("\n\nFlags of libraries\n")
            for module in sorted(flags.FLAGS.flags_by_module_dict()):
                if module != self._main_module and not _is_ours(module):
                    print(flags.FLAGS.module_help(module))
        sys.exit()


def own_flags(main_module: str) -> dict[str, str]:
    """Returns the names of the flags that are not those of libraries, each with its module."""
    return {
        flag.name: module
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module == main_module or _is_ours(module)
        for flag in defined
        if not isinstance(flag, _HelpFlag)
    }


def help_text(doc: str, own: dict[str, str], *, full: bool) -> str:
    """Returns the help of a binary.

    Args:
      doc: docstring of the binary: what it does, and examples.
      own: names of its flags, each with the module that defines it.
      full: whether to explain the flags that are seldom needed, too.
    """
    groups: dict[str, list[str]] = {}
    for name, module in own.items():
        groups.setdefault(_group_of(name, module), []).append(name)
    lines = [doc.strip()]
    for title in dict.fromkeys([_FIRST, *_GROUPS.values(), _SELDOM]):
        if title in groups:
            lines += ["", f"{title}:"]
            names = sorted(groups[title], key=lambda name: not _is_needed(flags.FLAGS[name]))
            lines += (
                _names_of(names)
                if title == _SELDOM and not full
                else [line for name in names for line in _explained(flags.FLAGS[name])]
            )
    lines += ["", "--flagfile=FILE reads flags from a file; --helpfull explains all flags."]
    return "\n".join(lines)


def _is_ours(module: str) -> bool:
    return module.startswith(f"{__package__}.") and module != __name__


def _group_of(name: str, module: str) -> str:
    if name in SELDOM_NEEDED:
        return _SELDOM
    return _GROUPS.get(module.rpartition(".")[2], _FIRST) if _is_ours(module) else _FIRST


def _width() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 0)).columns, _WIDEST)


def _names_of(names: Collection[str]) -> list[str]:
    text = ", ".join(f"--{name}" for name in sorted(names))
    return textwrap.wrap(text, _width(), initial_indent="  ", subsequent_indent="  ")


def _explained(flag: flags.Flag) -> Iterator[str]:
    """Yields lines: the flag with its default, then what it means beside or below it."""
    given = f"  --{_with_default(flag)}"
    # absl says how to repeat a flag in a line of its own, and joins allowed values without spaces.
    meaning = flag.help.split(";\n")[0]
    meaning = re.sub(r"^<(\S+)>: ", lambda found: f"{found[1].replace('|', ' | ')}: ", meaning)
    if _is_needed(flag):
        meaning += " (needed)"
    lines = textwrap.wrap(meaning, _width() - _NAMES_WIDTH - 1, break_long_words=False)
    if len(given) > _NAMES_WIDTH:
        yield given
        given = ""
    yield f"{given:{_NAMES_WIDTH}} {lines[0]}"
    for line in lines[1:]:
        yield " " * (_NAMES_WIDTH + 1) + line


def _with_default(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"{flag.name}={str(flag.default).lower()}"
    default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    if default in (None, ""):
        return f"{flag.name}="
    return f"{flag.name}={default}"


def _is_needed(flag: flags.Flag) -> bool:
    return any("other than None" in validator.message for validator in flag.validators)
