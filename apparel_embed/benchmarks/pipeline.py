"""Benchmarks of training input, bulk embedding and exact search at several scales."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Sequence

from absl import logging

from apparel_embed.benchmarks.harness import Rows
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting

MEANINGS = {
    "input_vs_ceiling": "input alone over decoding alone, throughput",
    "step_vs_constant_batch": "a training step over one on a constant batch, time",
    "step_decoding_vs_constant_batch": "the same with images decoded at every step",
    "student_pass_vs_classification": "a student's step over one of a classifier, time",
    "embed_vs_model": "bulk embedding of a prepared dataset over the model alone, throughput",
    "embed_manifest_vs_model": "the same for a manifest of photographs",
    "embed_cpu_vs_model": "the first in CPU time, which other programs disturb less",
    "embed_manifest_cpu_vs_model": "the second in CPU time",
    "knn_peak_gb": "peak memory of the searching process, GB",
}
"""Meanings of the figures, shown next to their names."""


# Imported on demand: processes that prepare images import the binary with its imports, and need not
# wait for TensorFlow.
PARTS = {
    "input": "apparel_embed.benchmarks.training_input:measure_input",
    "embedding": "apparel_embed.benchmarks.embedding:measure_embedding",
    "exact_search": "apparel_embed.benchmarks.exact_search:measure_exact_search",
}
"""Parts by name: functions from a scale and a seed to figures by name."""


@dataclasses.dataclass(frozen=True)
class PipelineBenchmark:
    """Settings of the benchmark."""

    parts: Sequence[str] = setting(
        tuple(PARTS), "part to measure; may be repeated", choices=PARTS, flag="part"
    )
    scales: Sequence[int] = setting(
        (1, 4, 16), "numbers of images to measure, as multiples of the smallest", 1, 16
    )
    seed: int = seed_setting("images, weights and vectors")


def measure_pipeline(config: PipelineBenchmark) -> Rows:
    """Measures each part at each scale; returns a row per figure with its value at each scale."""
    scales = sorted(set(config.scales))
    rows: dict[tuple[str, str], dict] = {}
    todo = [(part, scale) for part in config.parts for scale in scales]
    for part, scale in progress_bar(todo, what="pipeline", unit="measurements"):
        logging.info("%s, %dx", part, scale)
        for name, value in pkgutil.resolve_name(PARTS[part])(scale, config.seed).items():
            row = {"part": part, "figure": name, **{f"{one}x": None for one in scales}}
            rows.setdefault((part, name), row)[f"{scale}x"] = value
    return [{**row, "what": MEANINGS.get(name, "")} for (_, name), row in rows.items()]
