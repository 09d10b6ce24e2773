"""The semi-hard loss beside other implementations and beside what it cannot do without."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from rich import box
from rich.table import Table

from apparel_embed.benchmarks.measure import available_gb
from apparel_embed.benchmarks.process import (
    ProcessFailed,
    environment_with,
    run_json,
    run_module,
)
from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.common.text import plain_text

OURS, ADDONS, PYTORCH, FLOOR = "apparel_embed", "tfa", "pytorch_metric_learning", "floor"
IMPLEMENTATIONS = (OURS, ADDONS, PYTORCH, FLOOR)

# Bytes that an implementation needs for each of batch * batch * batch, measured at a batch of 512.
_BYTES_PER_CUBE = {ADDONS: 19.0, PYTORCH: 2.0}
# The one that is measured first, as messages name that.
_PYTORCH_PACKAGES = ("pytorch-metric-learning==2.9.0", "torch", "numpy<2")
_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class LossBenchmark:
    """What to measure."""

    batch_sizes: Sequence[int] = setting(
        (256, 512, 1024, 4096, 8192), "pictures in a batch", 2, 65536
    )
    pictures_per_item: int = setting(4, "pictures of each item in a batch", 1)
    implementations: Sequence[str] = setting(
        IMPLEMENTATIONS,
        "what to measure; repeat it",
        choices=IMPLEMENTATIONS,
        flag="implementation",
    )
    dim: int = setting(64, "length of an embedding", 1, flag="embedding_dim")
    margin: float = setting(0.3, "margin of the loss", 0.0, 2.0)
    rounds: int = setting(3, "how often each is started, in turns", 1)
    seconds: float = setting(2.0, "how long each is repeated once started, in seconds", 0.0)
    pytorch_environment: Path = setting(
        Path("~/.cache/apparel_embed/pytorch_metric_learning"),
        "directory of the virtual environment for pytorch_metric_learning, made where it is "
        "missing",
    )
    seed: int = seed_setting("the embeddings")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of an implementation, or why nothing was.

    Attributes:
      seconds: median of one loss with its gradient, or None.
      peak_mb: peak memory above the idle process in 10^6 bytes, or None.
      why_not: why there is no measurement, or "".
    """

    seconds: float | None = None
    peak_mb: float | None = None
    why_not: str = ""


Results = dict[int, dict[str, Measurement]]


def run_loss_benchmark(config: LossBenchmark) -> Results:
    """Measures each implementation at each batch size, each in a process of its own.

    Returns:
      By batch size, by implementation, the median of the rounds.

    Raises:
      UserError: if a batch is not made of whole items or PyTorch cannot be installed.
    """
    for size in config.batch_sizes:
        if size % config.pictures_per_item:
            raise UserError(
                f"a batch of {size} is not made of items with {config.pictures_per_item} pictures: "
                "allowed are multiples"
            )
    python = sys.executable
    if PYTORCH in config.implementations:
        programs = environment_with(
            config.pytorch_environment,
            _PYTORCH_PACKAGES,
            advice=f"--implementation without {PYTORCH} leaves it out",
        )
        python = str(programs / "python")
    results: Results = {}
    bar = progress_bar(
        total=len(config.batch_sizes) * config.rounds * len(config.implementations),
        what="losses",
        unit="runs",
    )
    for size in config.batch_sizes:
        rounds: dict[str, list[Measurement]] = {name: [] for name in config.implementations}
        for _ in range(config.rounds):
            for name, found in rounds.items():
                if not (found and found[-1].why_not):
                    bar.set_postfix(batch=size, implementation=name)
                    found.append(_run_one(config, size, name, python))
                bar.update(1)
        results[size] = {name: _median(found) for name, found in rounds.items()}
    bar.close()
    return results


def table_of(results: Results, config: LossBenchmark) -> str:
    """Returns the results as a table for people."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("batch", "implementation", "ms", "peak MB", "of the floor", "of ours"):
        table.add_column(heading, justify="left" if heading == "implementation" else "right")
    for size, found in results.items():
        for name, measured in found.items():
            if measured.seconds is None:
                table.add_row(f"{size:,}", name, measured.why_not)
                continue
            ratios = (
                ratio(measured.seconds, found[other].seconds) if other in found else None
                for other in (FLOOR, OURS)
            )
            table.add_row(
                f"{size:,}",
                name,
                f"{1000 * measured.seconds:,.2f}",
                "" if measured.peak_mb is None else f"{measured.peak_mb:,.0f}",
                *("" if value is None else f"{value:,.2f}" for value in ratios),
            )
        table.add_section()
    return plain_text(
        f"Semi-hard loss and gradient, {config.pictures_per_item} pictures an item, "
        f"{config.dim} dimensions, margin {config.margin:g}; medians.",
        table,
        "pytorch_metric_learning makes a triplet of every semi-hard negative of a pair, not of the "
        "nearest only, and averages over those with a loss."
        if PYTORCH in config.implementations
        else "",
        width=120,
    )


def summary_of(results: Results) -> list[dict[str, Any]]:
    """Returns the results for machines: per batch size the ratios, None where one is missing."""

    def seconds(found: dict[str, Measurement], name: str) -> float | None:
        return found[name].seconds if name in found else None

    return [
        {
            "batch_size": size,
            "speedup_vs_tfa": ratio(seconds(found, ADDONS), seconds(found, OURS)),
            "speedup_vs_pytorch_metric_learning": ratio(
                seconds(found, PYTORCH), seconds(found, OURS)
            ),
            "peak_mb": found[OURS].peak_mb if OURS in found else None,
            "times_floor": ratio(seconds(found, OURS), seconds(found, FLOOR)),
            "milliseconds": {
                name: None if measured.seconds is None else 1000 * measured.seconds
                for name, measured in found.items()
            },
        }
        for size, found in results.items()
    ]


def ratio(dividend: float | None, divisor: float | None) -> float | None:
    """Returns how many times the one is the other, None where either is missing."""
    return None if dividend is None or divisor is None else dividend / divisor


def _run_one(config: LossBenchmark, size: int, name: str, python: str) -> Measurement:
    needed, available = _BYTES_PER_CUBE.get(name, 0.0) * size**3 / 1e9, available_gb()
    if needed > available:
        why_not = f"needs about {needed:,.0f} GB of memory; {available:,.0f} GB are available"
        return Measurement(why_not=why_not)
    task = {
        "implementation": name,
        "batch_size": size,
        **{
            field: getattr(config, field)
            for field in ("pictures_per_item", "dim", "margin", "seconds", "seed")
        },
    }
    try:
        if name == PYTORCH:
            return Measurement(**run_json([python, str(_HERE / "loss_pytorch.py")], task))
        return Measurement(**run_module("loss_tensorflow", task))
    except ProcessFailed as error:
        logging.warning("%s, batch of %d: %s", name, size, error)
        return Measurement(why_not=f"failed: {str(error)[:60]}")


def _median(found: Sequence[Measurement]) -> Measurement:
    failed = [measured for measured in found if measured.why_not]
    if failed:
        return failed[0]
    seconds = [measured.seconds for measured in found if measured.seconds is not None]
    peaks = [measured.peak_mb for measured in found if measured.peak_mb is not None]
    return Measurement(
        seconds=statistics.median(seconds),
        peak_mb=max(peaks) if peaks else None,
    )
