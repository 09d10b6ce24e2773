"""Shared by benchmarks: time and memory, separate processes, work in turns, and tables."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.progress import progress_bar

Rows = list[dict[str, Any]]
"""Figures for people and programs: each row maps the columns of a table to its values."""

_CLEAR = Path("/proc/self/clear_refs")


class ProcessFailed(Exception):
    """A process could not start, or ended with a status other than 0; the message says why."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measurements of some work.

    Attributes:
      seconds: median of the wall time, or None.
      cpu_seconds: median of the CPU time of all cores, which other programs disturb little.
      peak_mb: peak memory in 10^6 bytes; None without Linux's /proc.
      why_not: reason why there is no measurement, or "".
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    why_not: str = ""


def measure(call: Callable[[], object]) -> dict[str, float | None]:
    """Returns `seconds` and `cpu_seconds` of one call, and `peak_mb` of the process during it."""
    _clear_peak()
    seconds, cpu_seconds = timed(call)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": memory_mb("VmHWM")}


def measure_warm(call: Callable[[], object], seconds: float) -> dict[str, float | None]:
    """Measures a call once it is warm.

    Args:
      call: function to measure; returns when its work is done.
      seconds: how long to repeat it, at least three times.

    Returns:
      `seconds` and `cpu_seconds`, medians; and `peak_mb`, the peak memory of all calls (including
      the first one, which compiles) above the memory before them.
    """
    idle = memory_mb("VmRSS")
    _clear_peak()
    call()
    call()
    times: list[tuple[float, float]] = []
    while len(times) < 3 or sum(wall for wall, _ in times) < seconds:
        times.append(timed(call))
    peak = memory_mb("VmHWM")
    wall, cpu = (statistics.median(values) for values in zip(*times))
    above = None if idle is None or peak is None else peak - idle
    return {"seconds": wall, "cpu_seconds": cpu, "peak_mb": above}


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall time and the CPU time of a call, in seconds.

    CPU time includes processes that it starts and waits for.
    """
    start, worked = time.perf_counter(), _cpu_seconds()
    call()
    return time.perf_counter() - start, _cpu_seconds() - worked


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, what: str
) -> dict[str, list[tuple[float, float]]]:
    """Returns the times of each side (see `timed`) in each round, after one call to warm up.

    They take turns, so a slow moment of the machine affects all sides.
    """
    for work in sides.values():
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in progress_bar(range(rounds), what=what, unit="rounds"):
        for name, work in sides.items():
            times[name].append(timed(work))
    return times


def medians(times: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Returns the median seconds of each side of `in_turns`."""
    return {name: statistics.median(wall for wall, _ in some) for name, some in times.items()}


def run_module(name: str, task: Mapping[str, Any]) -> Any:
    """Runs a module of the benchmarks in a separate process.

    Args:
      name: name of the module; its argument is the task as JSON, its last line the result as JSON.
      task: JSON values.

    Raises:
      ProcessFailed: if it ends with a status other than 0; the message is its last line.
    """
    command = [sys.executable, "-m", f"apparel_embed.benchmarks.{name}", json.dumps(task)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # If memory runs out, Linux should end this process and not the one that waits for it.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        printed, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        raise ProcessFailed("killed, probably because memory ran out")
    if process.returncode:
        lines = errors.strip().splitlines() or [f"exit status {process.returncode}"]
        raise ProcessFailed(lines[-1])
    return json.loads(printed.splitlines()[-1])


def measure_modules(
    name: str, tasks: Mapping[str, Mapping[str, Any]], rounds: int
) -> dict[str, Measured]:
    """Measures tasks in turns, each in separate processes.

    Args:
      name: name of the module that does them, see `run_module`.
      tasks: tasks by name.
      rounds: how many times each is started, 1 or more.

    Returns:
      Medians and peak memory, by name; for a failed task the reason.
    """
    found: dict[str, list[dict]] = {task: [] for task in tasks}
    failed: dict[str, str] = {}
    todo = [task for _ in range(rounds) for task in tasks]
    for task in progress_bar(todo, what=name, unit="runs"):
        if task not in failed:
            try:
                found[task].append(run_module(name, tasks[task]))
            except ProcessFailed as error:
                failed[task] = f"failed: {error}"
    return {
        task: Measured(why_not=failed[task]) if task in failed else _median(results)
        for task, results in found.items()
    }


def _median(found: Sequence[Mapping[str, Any]]) -> Measured:
    peaks = [one["peak_mb"] for one in found if one["peak_mb"] is not None]
    return Measured(
        statistics.median(one["seconds"] for one in found),
        statistics.median(one["cpu_seconds"] for one in found),
        max(peaks, default=None),
    )


def ratio(dividend: float | None, divisor: float | None) -> float | None:
    """Returns the ratio of two numbers; None if either is missing."""
    return None if dividend is None or not divisor else dividend / divisor


def memory_mb(what: str, process: int | str = "self") -> float | None:
    """Returns a process's current ("VmRSS") or peak ("VmHWM") memory in 10^6 bytes.

    None without Linux's /proc, or if the process does not exist.
    """
    status = Path(f"/proc/{process}/status")
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1.024 * int(found[1]) / 1e3 if found else None


def available_gb() -> float:
    """Returns the memory available without swapping, in 10^9 bytes.

    This includes caches, which can be freed. Without Linux's /proc it is all memory of the machine.
    """
    memory = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", memory.read_text()) if memory.exists() else None
    if found:
        return 1024.0 * int(found[1]) / 1e9
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def table(title: str, rows: Rows, ratios: Mapping[str, Any] | None = None) -> str:
    """Returns rows as a text table with their keys as titles, and further figures below it."""
    # Imported here, so that measured processes do not have it in memory.
    from rich import box
    from rich.table import Table

    from apparel_embed.common.text import plain_text

    drawn = Table(box=box.SIMPLE_HEAD)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        is_text = any(isinstance(row.get(name), str) for row in rows)
        drawn.add_column(name.replace("_", " "), justify="left" if is_text else "right")
    for row in rows:
        drawn.add_row(*(_as_text(row.get(name)) for name in names))
    further = (f"{name.replace('_', ' ')}: {_as_text(one)}" for name, one in (ratios or {}).items())
    return plain_text(title, drawn, *further, width=140)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    # Three digits, or all digits before the decimal point.
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _clear_peak() -> None:
    """Resets the peak memory of this process to the current one, if /proc exists."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
