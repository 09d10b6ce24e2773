"""What benchmarks share: memory and time, processes of their own, work in turns, and tables."""

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
"""Figures for people and programs: each row a mapping of one line of a table, by column."""

_CLEAR = Path("/proc/self/clear_refs")


class ProcessFailed(Exception):
    """A process could not start, or ended with another status than 0; the text says why."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of some work.

    Attributes:
      seconds: median, or None.
      cpu_seconds: those that all cores together worked, median: what others do on the machine at
        the same time changes it little.
      peak_mb: highest memory in 10^6 bytes; None where Linux's /proc is missing.
      why_not: why there is no measurement, or "".
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    why_not: str = ""


def measure(call: Callable[[], object]) -> dict[str, float | None]:
    """Returns `seconds` and `cpu_seconds` of one call, and `peak_mb` of the whole process in it."""
    _clear_peak()
    seconds, cpu_seconds = timed(call)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": memory_mb("VmHWM")}


def measure_warm(call: Callable[[], object], seconds: float) -> dict[str, float | None]:
    """Returns what a call takes once warm.

    Args:
      call: what to measure; returns when its work is done.
      seconds: how long to repeat it, three times at least.

    Returns:
      `seconds` and `cpu_seconds`, medians; and `peak_mb`, the highest memory of all calls (the
      first one, which compiles, too) above that before them.
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
    """Returns the seconds that a call takes, and those that all cores worked on it.

    Processes that it starts and waits for count, too.
    """
    start, worked = time.perf_counter(), _worked()
    call()
    return time.perf_counter() - start, _worked() - worked


def _worked() -> float:
    """Returns the seconds that this process and those it has ended have worked on all cores."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, what: str
) -> dict[str, list[tuple[float, float]]]:
    """Returns what each side takes (see `timed`) in each round; all are called once before.

    In turns, so that a slow moment of the machine affects all sides.
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
    """Runs a module of the benchmarks as a process of its own.

    Args:
      name: of the module; its last argument is the task as JSON, its last line the result as JSON.
      task: JSON values.

    Raises:
      ProcessFailed: it ends with a status other than 0; its last line is quoted.
    """
    command = [sys.executable, "-m", f"apparel_embed.benchmarks.{name}", json.dumps(task)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Where memory runs out, Linux is to end this process and not the one that waits for it.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        printed, said = process.communicate()
    if process.returncode == -signal.SIGKILL:
        raise ProcessFailed("killed, as a process is where memory runs out")
    if process.returncode:
        lines = said.strip().splitlines() or [f"exit status {process.returncode}"]
        raise ProcessFailed(lines[-1])
    return json.loads(printed.splitlines()[-1])


def measure_modules(
    name: str, tasks: Mapping[str, Mapping[str, Any]], rounds: int
) -> dict[str, Measured]:
    """Measures tasks, each in processes of its own and in turns.

    Args:
      name: of the module that does them, see `run_module`.
      tasks: by name.
      rounds: how often each is started, 1 or more.

    Returns:
      Medians and the highest memory, by name; of a task that fails why.
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
    """Returns how many times the one is the other, None where either is missing."""
    return None if dividend is None or not divisor else dividend / divisor


def memory_mb(what: str, process: int | str = "self") -> float | None:
    """Returns a process's memory in 10^6 bytes, now ("VmRSS") or at its peak ("VmHWM").

    None where Linux's /proc is missing, or the process.
    """
    status = Path(f"/proc/{process}/status")
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1.024 * int(found[1]) / 1e3 if found else None


def available_gb() -> float:
    """Returns the memory that new work can have without swapping, in 10^9 bytes.

    Caches count, as they make room. Without Linux's /proc it is all that the machine has.
    """
    memory = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", memory.read_text()) if memory.exists() else None
    if found:
        return 1024.0 * int(found[1]) / 1e9
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def table(title: str, rows: Rows, ratios: Mapping[str, Any] | None = None) -> str:
    """Returns rows as a table for people, headed by their keys, and further figures below it."""
    # Here, as processes that are measured need not have it in memory.
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
    # Three digits, or all before the point.
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _clear_peak() -> None:
    """Sets the highest memory of this process back to the present one, where that is known."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
