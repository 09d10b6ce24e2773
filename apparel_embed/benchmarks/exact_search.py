"""Benchmark of exact search for evaluation: time and memory of a process that runs this module."""

from __future__ import annotations

import json
import sys

import numpy as np

from apparel_embed.benchmarks.harness import ProcessFailed, measure, run_module
from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.neighbours import NearestSearch, unit_length

QUERIES = GALLERY = 100_000
_DIM, _K = 64, 20
_LARGEST_SCALE = 16


def measure_exact_search(scale: int = _LARGEST_SCALE, seed: int = 0) -> dict[str, float | None]:
    """Searches 100,000 vectors of 64 dimensions for the 20 nearest of each of 100,000.

    Args:
      scale: sixteenths of both numbers, 1 to 16.
      seed: seed of the vectors.

    Returns:
      `knn_seconds`, and `knn_peak_gb`, the peak memory of its process (including vectors, libraries
      and results) in 10^9 bytes; None without /proc.

    Raises:
      UserError: if the measurement fails.
    """
    sizes = (QUERIES * scale // _LARGEST_SCALE, GALLERY * scale // _LARGEST_SCALE)
    try:
        found = run_module("exact_search", {"sizes": sizes, "dim": _DIM, "k": _K, "seed": seed})
    except ProcessFailed as error:
        raise UserError(f"exact search of {sizes[0]} queries failed: {error}") from error
    peak = found["peak_mb"]
    return {"knn_seconds": found["seconds"], "knn_peak_gb": None if peak is None else peak / 1e3}


def main() -> None:
    """Prints the measurement as JSON; argv[1] is JSON too."""
    task = json.loads(sys.argv[1])
    random = np.random.default_rng(task["seed"])
    queries, gallery = (
        unit_length(random.normal(size=(count, task["dim"]))) for count in task["sizes"]
    )

    def search() -> object:
        # No query has these record numbers, so no vector is excluded.
        opened = NearestSearch(gallery, -1 - np.arange(len(gallery)))
        return opened.nearest(queries, task["k"], np.arange(len(queries)))

    print(json.dumps(measure(search)))


if __name__ == "__main__":
    main()
