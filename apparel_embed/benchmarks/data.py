"""Work on manifests of many rows beside what none of it can do without: reading the file."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from apparel_embed.benchmarks.process import ProcessFailed, run_module
from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.common.text import plain_text

READ_CSV, READ_PARQUET = "read_csv", "read_parquet"
TASKS = {
    READ_CSV: ("pyarrow reads the CSV file", READ_CSV),
    "load_csv": ("read_manifest of it: every value checked", READ_CSV),
    READ_PARQUET: ("pyarrow reads the Parquet file", READ_PARQUET),
    "load_parquet": ("read_manifest of it: every value checked", READ_PARQUET),
    "split": ("hold_out: a tenth of the items to val", READ_PARQUET),
    "open": ("PreparedDataset.open, and a select by split, verticals, roles", READ_PARQUET),
    "sampler": ("PKSampler of all training pictures, and its first batch", READ_PARQUET),
}
"""What is measured, by name: what it does, and the floor that it is compared with."""

# Seconds below which clocks tell nothing, and a ratio might be of nothing.
_SHORTEST = 1e-4


@dataclasses.dataclass(frozen=True)
class DataBenchmark:
    """What to measure.

    Attributes:
      rounds: how often each task is started; they take turns, as machines have moods.
      directory: where the manifests are written, and removed again; None for the system's place
        for temporary files. Ten million rows take about 1.2 GB.
    """

    rows: Sequence[int] = setting((1_000_000, 10_000_000), "rows of the manifests", 100, 10**8)
    pictures_per_item: int = setting(4, "rows with the same item", 2, 50)
    boxes: bool = setting(True, "give every row a box")
    rounds: int = setting(1, "how often each is started, in turns", 1)
    directory: Path | None = setting(
        None,
        "directory for the manifests, which are removed again; ten million rows take about 1.2 GB; "
        "by default the system's place for temporary files",
    )
    seed: int = seed_setting("the manifests")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of a task.

    Attributes:
      seconds: median of the rounds.
      cpu_seconds: those that all cores together worked, median of the rounds: what others do on the
        machine at the same time changes it little, so ratios are of these.
      peak_mb: highest memory of its process in 10^6 bytes, all in all; None where it is not known.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float | None

    def times(self, floor: Measurement) -> float:
        """Returns how many times the work of another this is."""
        return self.cpu_seconds / max(floor.cpu_seconds, _SHORTEST)


Results = dict[int, dict[str, Measurement]]


def run_data_benchmark(config: DataBenchmark) -> Results:
    """Measures each task at each number of rows, each in a process of its own.

    Returns:
      By number of rows, by task, the median of the rounds.

    Raises:
      UserError: if the directory cannot be written to, or a task fails.
    """
    results: Results = {}
    bar = progress_bar(
        total=len(config.rows) * (1 + config.rounds * len(TASKS)), what="manifests", unit="tasks"
    )
    with bar:
        for rows in config.rows:
            with _directory_in(config.directory) as directory:
                bar.set_postfix(rows=rows, task="make")
                _run_one(config, rows, "make", directory)
                bar.update(1)
                found: dict[str, list[Measurement]] = {name: [] for name in TASKS}
                for _ in range(config.rounds):
                    for name, measured in found.items():
                        bar.set_postfix(rows=rows, task=name)
                        measured.append(_run_one(config, rows, name, directory))
                        bar.update(1)
            results[rows] = {name: _median(measured) for name, measured in found.items()}
    return results


def table_of(results: Results, config: DataBenchmark) -> str:
    """Returns the results as a table for people."""
    table = Table(box=box.SIMPLE_HEAD)
    headings = ("rows", "task", "seconds", "CPU s", "peak MB", "times the floor", "what it does")
    for heading in headings:
        text = heading in ("task", "what it does")
        table.add_column(heading, justify="left" if text else "right")
    for rows, found in results.items():
        for name, measured in found.items():
            what, floor = TASKS[name]
            table.add_row(
                f"{rows:,}",
                name,
                f"{measured.seconds:,.2f}",
                f"{measured.cpu_seconds:,.2f}",
                "" if measured.peak_mb is None else f"{measured.peak_mb:,.0f}",
                f"{measured.times(found[floor]):,.1f}",
                what,
            )
        table.add_section()
    return plain_text(
        f"Manifests with {config.pictures_per_item} pictures an item, "
        f"{'with' if config.boxes else 'without'} boxes; medians of {config.rounds}; ratios "
        "are of CPU seconds.",
        table,
        width=140,
    )


def summary_of(results: Results) -> list[dict[str, object]]:
    """Returns the results for machines: per number of rows times, memory and ratios by task."""
    return [
        {
            "rows": rows,
            "seconds": {name: measured.seconds for name, measured in found.items()},
            "cpu_seconds": {name: measured.cpu_seconds for name, measured in found.items()},
            "peak_mb": {name: measured.peak_mb for name, measured in found.items()},
            "times_floor": {
                name: measured.times(found[TASKS[name][1]]) for name, measured in found.items()
            },
        }
        for rows, found in results.items()
    ]


def _directory_in(directory: Path | None) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=directory)
    except OSError as error:
        where = f"--directory={directory}" if directory else "the place for temporary files"
        raise UserError(f"{where}: cannot be written to: {error.strerror}") from error


def _run_one(config: DataBenchmark, rows: int, name: str, directory: str) -> Measurement:
    task = {
        "name": name,
        "directory": directory,
        "rows": rows,
        **{field: getattr(config, field) for field in ("pictures_per_item", "boxes", "seed")},
    }
    try:
        return Measurement(**run_module("data_tasks", task))
    except ProcessFailed as error:
        raise UserError(f"task {name} with {rows:,} rows failed: {error}") from error


def _median(found: Sequence[Measurement]) -> Measurement:
    peaks = [measured.peak_mb for measured in found if measured.peak_mb is not None]
    return Measurement(
        seconds=statistics.median(measured.seconds for measured in found),
        cpu_seconds=statistics.median(measured.cpu_seconds for measured in found),
        peak_mb=max(peaks) if peaks else None,
    )
