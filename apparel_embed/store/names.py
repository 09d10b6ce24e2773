"""Names of a run's stages: those of their directories."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apparel_embed.common.files import fingerprint_json

COMBINED_START = "combined-start"
"""The combined model that specialists and the student start from."""
COMBINED = "combined"
"""The combined model to compare with."""
GROUPING = "grouping"
SPECIALIST = "specialist"
FROZEN_VIEWS = "frozen-views"
TARGETS = "targets"
STUDENT = "student"
OLD_STUDENT = "old_student"
"""The student of an earlier run, where it is an input."""
VERTICAL_HEAD = "vertical_head"
DETECTOR = "detector"
PHOTOGRAPHS = "photographs"
"""The prepared dataset of whole photographs that a detector learns from."""
PREPARED = "prepared"
"""The prepared dataset of a run."""
EVALUATION = "evaluation"
REPORT = "report"
SUMMARIES = "summaries"
SWEEP = "sweep"
COMPRESSION = "compression"

# Names of directories have at most 255 bytes.
_LONGEST_NAME = 150
# Signs in a vertical's name that part directories, or the verticals of a group.
_NOT_IN_NAMES = re.compile(r"[/\\+]")


def specialist_name(verticals: Sequence[str], number: int = 0) -> str:
    """Returns the name of the stage that trains a group's specialist.

    Those of the first combined model are `specialist-<verticals>`, those of the second are
    `specialist2-<verticals>`, and so on. The name is that of one directory, and of no other group:
    of many verticals it is cut, a sign that would lead elsewhere becomes "_", and it ends in a
    fingerprint of their names then.

    Args:
      verticals: those of the group.
      number: of the combined model that it starts from, counted from 0.
    """
    words = (_NOT_IN_NAMES.sub("_", vertical) for vertical in sorted(verticals))
    name = f"{SPECIALIST}{number + 1 if number else ''}-{'+'.join(words)}"
    is_plain = not any(_NOT_IN_NAMES.search(vertical) for vertical in verticals)
    if is_plain and len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{start}-{fingerprint_json(sorted(verticals))[:12]}"


def combined_start_name(number: int) -> str:
    """Returns the name of the stage of a combined model, counted from 0, that others start from."""
    return f"{COMBINED_START}-{number + 1}" if number else COMBINED_START
