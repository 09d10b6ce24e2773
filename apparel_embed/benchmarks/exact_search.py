"""Exact search for evaluation: beside faiss-cpu's flat index, and what memory it needs."""

from __future__ import annotations

import importlib.util

from apparel_embed.benchmarks.process import ProcessFailed, run_module
from apparel_embed.common.errors import UserError

QUERIES = GALLERY = 100_000
_DIM, _K = 64, 20
_LARGEST_SCALE = 16


def measure_exact_search(scale: int = _LARGEST_SCALE, seed: int = 0) -> dict[str, float | None]:
    """Searches 100,000 vectors of 64 dimensions for the 20 nearest of each of 100,000.

    Args:
      scale: 16 for all of them, 4 for a quarter of both, and so on: 1 to 16.
      seed: of the vectors.

    Returns:
      `knn_seconds` of our search alone, and `knn_peak_gb`, the highest memory of its process
      (vectors, libraries and results included) in 10^9 bytes; None where /proc is missing. At full
      size also `knn_vs_faiss`, faiss's time over ours in one process, in turns, and `knn_alike`,
      the share of neighbours that both find in the same place (float32 ties differ); None where
      faiss-cpu is not installed.

    Raises:
      UserError: if a measurement fails.
    """
    task = {
        "queries": QUERIES * scale // _LARGEST_SCALE,
        "gallery": GALLERY * scale // _LARGEST_SCALE,
        "dim": _DIM,
        "k": _K,
        "seed": seed,
    }
    alone = _run({**task, "faiss": False})
    found = {"knn_seconds": alone["seconds"], "knn_peak_gb": alone["peak_gb"]}
    if scale == _LARGEST_SCALE:
        beside: dict = {"ratio": None, "alike": None}
        if importlib.util.find_spec("faiss"):
            beside = _run({**task, "faiss": True})
        found |= {"knn_vs_faiss": beside["ratio"], "knn_alike": beside["alike"]}
    return found


def _run(task: dict) -> dict:
    try:
        return run_module("exact_search_process", task)
    except ProcessFailed as error:
        raise UserError(f"exact search of {task['queries']} queries failed: {error}") from error
