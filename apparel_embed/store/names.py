"""Names of a run's stages, which are also their directories' names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apparel_embed.common.files import fingerprint_json

COMBINED_START = "combined-start"
"""The combined model that specialists and the student start from."""
COMBINED = "combined"
"""The combined model that the student is compared with."""
GROUPING = "grouping"
SPECIALIST = "specialist"
FROZEN_VIEWS = "frozen-views"
TARGETS = "targets"
STUDENT = "student"
OLD_STUDENT = "old_student"
"""The student of an earlier run, as an input."""
VERTICAL_HEAD = "vertical_head"
DETECTOR = "detector"
PHOTOGRAPHS = "photographs"
"""The prepared dataset of whole photographs that the detector is trained on."""
PREPARED = "prepared"
"""The prepared dataset of a run."""
EVALUATION = "evaluation"
REPORT = "report"
SUMMARIES = "summaries"
SWEEP = "sweep"
COMPRESSION = "compression"

# Directory names have at most 255 bytes.
_LONGEST_NAME = 150
# Characters that separate directories, or the verticals of a group.
_NOT_IN_NAMES = re.compile(r"[/\\+]")


def specialist_name(verticals: Sequence[str], number: int = 0) -> str:
    """Returns the name of the stage that trains a group's specialist.

    Specialists that start from the first combined model are `specialist-<verticals>`, those of the
    second `specialist2-<verticals>`, and so on. Long names are cut, and separators become "_";
    such names end in a fingerprint of the verticals' names, so every group has its own name.

    Args:
      verticals: the verticals of the group.
      number: number of the combined model that it starts from, counted from 0.
    """
    words = (_NOT_IN_NAMES.sub("_", vertical) for vertical in sorted(verticals))
    name = f"{SPECIALIST}{number + 1 if number else ''}-{'+'.join(words)}"
    is_plain = not any(_NOT_IN_NAMES.search(vertical) for vertical in verticals)
    if is_plain and len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{start}-{fingerprint_json(sorted(verticals))[:12]}"


def combined_start_name(number: int) -> str:
    """Returns the name of the stage that trains a start for others; `number` counts from 0."""
    return f"{COMBINED_START}-{number + 1}" if number else COMBINED_START
