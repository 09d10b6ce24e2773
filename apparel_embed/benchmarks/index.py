"""The index on many vectors: how long it takes, how large it is, and what it misses."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from apparel_embed.benchmarks.harness import Rows
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.evaluation.neighbours import nearest, unit_length
from apparel_embed.search.index import IndexedPicture, IndexSettings, Version, open_index

_ROWS_AT_ONCE = 2_000
_PICTURES_PER_ITEM = 10
_VERTICALS = 8
# How far images lie from their item, and queries from an image, against the item's own length.
_PICTURE_SPREAD = 0.6
_QUERY_SPREAD = 0.3


@dataclasses.dataclass(frozen=True)
class IndexBenchmark:
    """What to measure."""

    vectors: int = setting(100_000, "in the index, in items of 10", 100)
    dim: int = setting(64, "length of a vector", 2, 32768, flag="embedding_dim")
    queries: int = setting(100, "searches, each of its own vector", 1)
    k: int = setting(10, "hits of a search", 1, 100)
    settings: Sequence[IndexSettings] = (IndexSettings(),)
    seed: int = seed_setting("the vectors")


def measure_indices(config: IndexBenchmark) -> Rows:
    """Fills indices and asks each, in a file of its own that is removed afterwards.

    Returns:
      Of each index the seconds from the first vector to the switch; the median ms of a search in
      all verticals, and in one of 8; its size on disk; and `recall`, the share of the k nearest
      items of that vertical that are found.
    """
    embeddings, asked = synthetic_embeddings(config)
    exact = _nearest_items(embeddings, asked, config.k)
    return [_measure(one, embeddings, asked, exact, config.k) for one in config.settings]


def synthetic_embeddings(config: IndexBenchmark) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors in clusters, as images of items are, and queries near some of them.

    Returns:
      float32 [vectors, dim] and [queries, dim].
    """
    vectors, dim = config.vectors, config.dim
    random = np.random.default_rng(config.seed)
    items = random.normal(size=(-(-vectors // _PICTURES_PER_ITEM), dim))
    of_item = np.repeat(items, _PICTURES_PER_ITEM, axis=0)[:vectors]
    pictures = of_item + _PICTURE_SPREAD * random.normal(size=of_item.shape)
    chosen = pictures[random.integers(0, vectors, config.queries)]
    asked = chosen + _QUERY_SPREAD * random.normal(size=chosen.shape)
    return unit_length(pictures), unit_length(asked)


def _nearest_items(embeddings: np.ndarray, queries: np.ndarray, k: int) -> list[set[str]]:
    """Returns the k nearest items of the first vertical to each query, by looking at all."""
    places = np.arange(len(embeddings))
    items = places // _PICTURES_PER_ITEM
    within = places[items % _VERTICALS == 0]
    # However many images of an item are the nearest, k items are among these.
    count = min(len(within), k * _PICTURES_PER_ITEM)
    found, _ = nearest(queries, embeddings[within], count, np.full(len(queries), -1), within)
    return [
        {f"item{item}" for item in list(dict.fromkeys(items[within[row]]))[:k]} for row in found
    ]


def _measure(
    settings: IndexSettings,
    embeddings: np.ndarray,
    queries: np.ndarray,
    exact: Sequence[set[str]],
    k: int,
) -> dict[str, Any]:
    from apparel_embed.search.build import build_index  # Imports TensorFlow.

    logging.info("building %s", settings.kind)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "index.db"
        with open_index(str(path)) as index:
            start = time.perf_counter()
            empty = Version("0" * 64, embeddings.shape[1], settings=settings)
            version = build_index(index, empty, _rows(embeddings)).version
            build_seconds = time.perf_counter() - start
            index.search(version, queries[0], k)
            seconds, within, found = [], [], 0
            for query, items in zip(queries, exact):
                start = time.perf_counter()
                index.search(version, query, k)
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
                hits = index.search(version, query, k, vertical="vertical0")
                within.append(time.perf_counter() - start)
                found += len({hit.picture.item for hit in hits} & items)
        size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    return {
        "kind": version.settings.kind,
        "build_seconds": build_seconds,
        "query_ms": 1000 * statistics.median(seconds),
        "query_in_vertical_ms": 1000 * statistics.median(within),
        "megabytes": size / 1e6,
        "recall": found / sum(map(len, exact)),
    }


def _rows(embeddings: np.ndarray) -> Iterator[tuple[list[IndexedPicture], np.ndarray]]:
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        some = embeddings[start : start + _ROWS_AT_ONCE]
        places = range(start, start + len(some))
        yield [_picture(place, place // _PICTURES_PER_ITEM) for place in places], some


def _picture(place: int, item: int) -> IndexedPicture:
    vertical = f"vertical{item % _VERTICALS}"
    return IndexedPicture(f"{place:032x}", f"{place}.jpg", f"item{item}", vertical)
