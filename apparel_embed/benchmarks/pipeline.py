"""Every ratio of training input, bulk embedding and exact search, and how cost grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from absl import logging
from rich import box
from rich.table import Table

from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.common.text import plain_text

Figures = Mapping[str, "float | None"]
Results = Mapping[str, Mapping[int, Figures]]

SCALES = (1, 4, 16)
MEANINGS = {
    "input_vs_ceiling": "input alone over decoding alone, throughput",
    "step_vs_constant_batch": "a training step over one on a constant batch, time",
    "step_decoding_vs_constant_batch": "the same where pictures are decoded anew each time",
    "student_pass_vs_classification": "a student's pass over one of classification, time",
    "embed_vs_model": "bulk embedding of a prepared dataset over the model alone, throughput",
    "embed_manifest_vs_model": "the same of a manifest of photographs",
    "embed_cpu_vs_model": "the first by time of the processor, which other programs disturb less",
    "embed_manifest_cpu_vs_model": "the second by time of the processor",
    "knn_vs_faiss": "faiss's flat index over exact search, time",
    "knn_peak_gb": "highest memory of the process that searches, GB",
}
"""What the figures say that are told beside their names."""


def measure_training_input(scale: int, seed: int) -> Figures:
    """See `training_input.measure_input`."""
    # Imported when it is measured: the processes that prepare pictures import the binary and what
    # it imports, and need not wait for TensorFlow.
    from apparel_embed.benchmarks.training_input import measure_input

    return measure_input(scale, seed)


def measure_bulk_embedding(scale: int, seed: int) -> Figures:
    """See `embedding.measure_embedding`."""
    from apparel_embed.benchmarks.embedding import measure_embedding

    return measure_embedding(scale, seed)


def measure_search(scale: int, seed: int) -> Figures:
    """See `exact_search.measure_exact_search`."""
    from apparel_embed.benchmarks.exact_search import measure_exact_search

    return measure_exact_search(scale, seed)


PARTS: dict[str, Callable[[int, int], Figures]] = {
    "input": measure_training_input,
    "embedding": measure_bulk_embedding,
    "exact_search": measure_search,
}
"""What can be measured: from a scale and a seed to figures by name."""


@dataclasses.dataclass(frozen=True)
class PipelineBenchmark:
    """What to measure."""

    parts: Sequence[str] = setting(
        tuple(PARTS), "what to measure; repeat it", choices=PARTS, flag="part"
    )
    scales: Sequence[int] = setting(
        SCALES,
        "how many times the smallest number of images to measure (faiss is met at 16)",
        1,
        16,
    )
    seed: int = seed_setting("pictures, weights and vectors")


def run_pipeline_benchmark(
    config: PipelineBenchmark, parts: Mapping[str, Callable[[int, int], Figures]] = PARTS
) -> Results:
    """Measures each part at each scale.

    Args:
      config: what to measure.
      parts: how.

    Returns:
      Figures by part and scale.
    """
    results: dict[str, dict[int, Figures]] = {}
    todo = [(part, scale) for part in config.parts for scale in sorted(set(config.scales))]
    for part, scale in progress_bar(todo, what="pipeline", unit="measurements"):
        logging.info("%s, %dx", part, scale)
        results.setdefault(part, {})[scale] = parts[part](scale, config.seed)
    return results


def table_of(results: Results) -> str:
    """Returns the figures as a table for people: one row each, one column for each scale."""
    tables = []
    for part, by_scale in results.items():
        table = Table(box=box.SIMPLE_HEAD, title=part, title_justify="left")
        table.add_column("figure")
        for scale in by_scale:
            table.add_column(f"{scale}x", justify="right")
        table.add_column("")
        for name in dict.fromkeys(name for found in by_scale.values() for name in found):
            values = [_as_text(found.get(name)) for found in by_scale.values()]
            table.add_row(name, *values, MEANINGS.get(name, ""))
        tables.append(table)
    return plain_text(*tables, width=120)


def summary_of(results: Results) -> dict[str, object]:
    """Returns the results for machines: figures at the largest scale, and `growth` with all."""
    summary: dict[str, object] = {}
    for by_scale in results.values():
        summary |= by_scale[max(by_scale)]
    growth = {
        part: {str(scale): dict(found) for scale, found in by_scale.items()}
        for part, by_scale in results.items()
    }
    return {**summary, "growth": growth}


def _as_text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
