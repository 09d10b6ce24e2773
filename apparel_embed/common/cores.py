"""The number of usable CPU cores."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns how many cores this process may use: all, unless it is pinned to some (taskset)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
