"""Time and peak memory of one function, in a process that does nothing else.

Needs nothing but the standard library, so that it runs in environments without the package.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")


def measure(call: Callable[[], object], *, seconds: float) -> dict[str, float | None]:
    """Returns how long a call takes once warm, and what it needs beyond the idle process.

    Args:
      call: what to measure; returns when its work is done.
      seconds: how long to repeat it, three times at least.

    Returns:
      "seconds", the median; and "peak_mb", the highest memory of all calls (the first one, which
      compiles, too) above that before them, in 10^6 bytes; None where Linux's /proc is missing.
    """
    idle = _memory("VmRSS")
    if idle is not None:
        _CLEAR.write_text("5")  # Sets the peak back to the present.
    call()
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    peak = _memory("VmHWM")
    return {
        "seconds": statistics.median(times),
        "peak_mb": None if idle is None or peak is None else (peak - idle) / 1e6,
    }


def measure_once(call: Callable[[], object]) -> dict[str, float | None]:
    """Returns how long a single call takes, and the memory of the process until its end.

    Args:
      call: what to measure; returns when its work is done.

    Returns:
      "seconds"; "cpu_seconds", those that all cores together worked; and "peak_mb", the highest
      memory of the process during the call, with all that was there before, in 10^6 bytes; None
      where Linux's /proc is missing.
    """
    if _memory("VmRSS") is not None:
        _CLEAR.write_text("5")  # Sets the peak back to the present.
    start, start_of_work = time.perf_counter(), time.process_time()
    call()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_of_work
    peak = _memory("VmHWM")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": None if peak is None else peak / 1e6,
    }


def peak_gb() -> float | None:
    """Returns the highest memory of this process until now, in 10^9 bytes; None without /proc."""
    peak = _memory("VmHWM")
    return None if peak is None else peak / 1e9


def resident_mb(process: int) -> float | None:
    """Returns the present memory of a process in 10^6 bytes; None without /proc."""
    memory = _memory("VmRSS", process)
    return None if memory is None else memory / 1e6


def available_gb() -> float:
    """Returns the memory that new work can have without swapping, in 10^9 bytes.

    Caches count, as they make room. Without Linux's /proc it is all that the machine has.
    """
    memory = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", memory.read_text()) if memory.exists() else None
    if found:
        return 1024.0 * int(found.group(1)) / 1e9
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _memory(what: str, process: int | str = "self") -> float | None:
    """Returns a process's memory in bytes, now ("VmRSS") or at its peak ("VmHWM")."""
    status = Path(f"/proc/{process}/status")
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1024.0 * int(found.group(1)) if found else None
