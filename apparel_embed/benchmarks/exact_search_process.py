"""Times exact search beside faiss-cpu's flat index: run as a process of its own."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

from apparel_embed.benchmarks.measure import peak_gb
from apparel_embed.evaluation.neighbours import NearestSearch, unit_length


def main() -> None:
    """Prints the measurement as JSON; argv[1] is JSON too."""
    task = json.loads(sys.argv[1])
    random = np.random.default_rng(task["seed"])
    queries, gallery = (
        unit_length(random.normal(size=(task[name], task["dim"])))
        for name in ("queries", "gallery")
    )
    print(json.dumps((_beside_faiss if task["faiss"] else _alone)(queries, gallery, task["k"])))


def _alone(queries: np.ndarray, gallery: np.ndarray, k: int) -> dict[str, float | None]:
    start = time.perf_counter()
    _search(_open(gallery), queries, k)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gb": peak_gb()}


def _beside_faiss(queries: np.ndarray, gallery: np.ndarray, k: int) -> dict[str, float]:
    """Part of the queries after the other, by one and by the other, as machines have moods."""
    import faiss

    begun = time.perf_counter()
    search = _open(gallery)
    opened = time.perf_counter()
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery)
    ours, theirs = [opened - begun], [time.perf_counter() - opened]
    alike = []
    for part in np.array_split(queries, 5):
        start = time.perf_counter()
        found = _search(search, part, k)
        middle = time.perf_counter()
        _, expected = index.search(part, k)
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
        alike.append(np.mean(found == expected))
    return {
        "seconds": sum(ours),
        "faiss_seconds": sum(theirs),
        # Of the parts, so that one disturbance more or less does not count.
        "ratio": statistics.median(theirs[1:]) / (statistics.median(ours[1:]) + ours[0] / 5),
        "alike": float(np.mean(alike)),
    }


def _open(gallery: np.ndarray) -> NearestSearch:
    # Numbers that no query has: faiss leaves out no record.
    return NearestSearch(gallery, -1 - np.arange(len(gallery)))


def _search(search: NearestSearch, queries: np.ndarray, k: int) -> np.ndarray:
    return search.nearest(queries, k, np.arange(len(queries)))[0]


if __name__ == "__main__":
    main()
