"""Help texts of --help and --helpfull: the binary's docstring, then its flags in groups."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

from absl import flags

from apparel_embed.cli.binaries import as_called
from apparel_embed.cli.define import GROUPS, RARE

_NAMES_WIDTH = 27
_WIDEST = 100


def define_help_flags() -> None:
    """Replaces absl's --help and --helpfull, which list flags by module."""
    for name, short_name, full in (
        ("help", "?", False),
        ("helpshort", None, False),
        ("helpfull", None, True),
    ):
        flags.DEFINE_flag(_HelpFlag(name, short_name, full))


class _HelpFlag(flags.BooleanFlag):
    """Shows help and exits, like absl's own flag."""

    def __init__(self, name: str, short_name: str | None, full: bool) -> None:
        what = "explain all flags, including libraries'" if full else "show the flags, in groups"
        super().__init__(name, False, what, short_name=short_name, allow_override=True)
        self._full = full

    def parse(self, argument: str | bool) -> None:
        """Shows help if the flag is set."""
        if not self._parse(argument):
            return
        doc = sys.modules["__main__"].__doc__ or ""
        print(as_called(help_text(doc, own_flags(), full=self._full)))
        if self._full:
            print("\n\nFlags of libraries\n")
            for module in sorted(flags.FLAGS.flags_by_module_dict()):
                if module not in GROUPS:
                    print(flags.FLAGS.module_help(module))
        sys.exit()


def own_flags() -> dict[str, str]:
    """Returns the names of this project's flags, each with its group."""
    modules = flags.FLAGS.flags_by_module_dict()
    return {flag.name: group for group in GROUPS for flag in modules.get(group, ())}


def help_text(doc: str, own: dict[str, str], *, full: bool) -> str:
    """Returns the help of a binary.

    Args:
      doc: the binary's docstring: what it does, and examples.
      own: names of its flags, each with its group.
      full: whether to explain the rarely needed flags, too.
    """
    lines = [doc.strip()]
    for title in dict.fromkeys(own.values()):
        lines += ["", f"{title}:"]
        named = [flags.FLAGS[name] for name, group in own.items() if group == title]
        if title == RARE and not full:
            lines += _names_of(flag.name for flag in named)
        else:
            named.sort(key=lambda flag: not _is_needed(flag))
            lines += [line for flag in named for line in _explained(flag)]
    lines += ["", "--flagfile=FILE reads flags from a file; --helpfull explains all flags."]
    return "\n".join(lines)


def _width() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 0)).columns, _WIDEST)


def _names_of(names: Iterable[str]) -> list[str]:
    text = ", ".join(f"--{name}" for name in sorted(names))
    return textwrap.wrap(text, _width(), initial_indent="  ", subsequent_indent="  ")


def _explained(flag: flags.Flag) -> Iterator[str]:
    """Yields lines: the flag with its default, with the explanation next to or below it."""
    given = f"  --{_with_default(flag)}"
    # absl appends a line on how to repeat a flag, and joins the valid values without spaces.
    meaning = flag.help.split(";\n")[0]
    meaning = re.sub(r"^<(\S+)>: ", lambda found: f"{found[1].replace('|', ' | ')}: ", meaning)
    if _is_needed(flag):
        meaning += " (required)"
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
