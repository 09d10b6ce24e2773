r"""Measures training input, bulk embedding and exact search beside what they are to keep up with.

    python tools/benchmark_pipeline.py
    python tools/benchmark_pipeline.py --part=exact_search --scales=16 --json

Every ratio is measured with both sides in turns, in one process; memory in a process that does
nothing else. Each figure is there for 1, 4 and 16 times as many images: how cost grows. With --json
the last line is one object: the figures at the largest scale, and `growth`. About five minutes on
two cores, about one for --part=exact_search.
"""

from __future__ import annotations

import json

from absl import flags

from apparel_embed.benchmarks.pipeline import (
    PARTS,
    SCALES,
    PipelineBenchmark,
    run_pipeline_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.cli import app

_PARTS = flags.DEFINE_multi_enum("part", list(PARTS), list(PARTS), "what to measure; repeat it")
_SCALES = flags.DEFINE_list(
    "scales",
    [str(scale) for scale in SCALES],
    "how many times the smallest number of images to measure, each 1 to 16; faiss is met at 16",
)
flags.register_validator(
    "scales",
    lambda values: (
        bool(values) and all(value.isdecimal() and 1 <= int(value) <= 16 for value in values)
    ),
    "allowed are whole numbers from 1 to 16, with commas between them",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "seed of pictures, weights and vectors (0 or more)", lower_bound=0
)
_JSON = flags.DEFINE_bool("json", False, "print one JSON object on the last line")


def main() -> None:
    """Measures, and prints tables."""
    scales = sorted({int(scale) for scale in _SCALES.value})
    results = run_pipeline_benchmark(PipelineBenchmark(_PARTS.value, scales, _SEED.value))
    print(table_of(results))
    if _JSON.value:
        print(json.dumps(summary_of(results)))


if __name__ == "__main__":
    app.run(main)
