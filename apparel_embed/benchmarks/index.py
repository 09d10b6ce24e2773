"""Benchmark of the index with many vectors: time, size and recall."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from apparel_embed.benchmarks.harness import Rows, memory_mb, timed
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.evaluation.neighbours import nearest, unit_length
from apparel_embed.search.index import (
    IndexedImage,
    IndexSettings,
    VectorIndex,
    Version,
    open_index,
)
from apparel_embed.search.source import image_key

_ROWS_AT_ONCE = 2_000
_IMAGES_PER_ITEM = 10
_VERTICALS = 8
# Distances of images from their item and of queries from an image, relative to the item's length.
_IMAGE_SPREAD = 0.6
_QUERY_SPREAD = 0.3


@dataclasses.dataclass(frozen=True)
class IndexBenchmark:
    """Settings of the benchmark."""

    vectors: int = setting(100_000, "vectors in the index, 10 per item", 100)
    dim: int = setting(64, "length of a vector", 2, 32768, flag="embedding_dim")
    queries: int = setting(100, "number of searches, each for a different vector", 1)
    k: int = setting(12, "hits per search", 1, 100)
    settings: Sequence[IndexSettings] = (IndexSettings(),)
    index_uri: str = setting(
        "",
        "address of a Milvus server to fill instead of a file; the vectors stay there, in a "
        "version that does not answer searches",
    )
    night: int = setting(
        0, "rows of a delta to apply to an index file while it is searched; 0 is none", 0, 100_000
    )
    seed: int = seed_setting("the vectors")


def measure_indices(config: IndexBenchmark) -> Rows:
    """Fills indices and searches each; files are removed afterwards.

    Returns:
      A row per index: wall and CPU seconds of filling it; median ms of a search by item in all
      verticals and in one of 8, median ms of the exact search with numpy (product of the same
      vectors with the query, and its k largest values), and their ratio; its size on disk, and its
      share of this process's memory; and `recall` in all verticals and in one, the share of the k
      nearest items that is found.
    """
    embeddings, queries = synthetic_embeddings(config)
    return [_measure(config, settings, embeddings, queries) for settings in config.settings]


def synthetic_embeddings(config: IndexBenchmark) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors in clusters, like images of items, and queries near some of them.

    Returns:
      float32 [vectors, dim] and [queries, dim].
    """
    vectors, dim = config.vectors, config.dim
    random = np.random.default_rng(config.seed)
    items = random.normal(size=(-(-vectors // _IMAGES_PER_ITEM), dim))
    of_item = np.repeat(items, _IMAGES_PER_ITEM, axis=0)[:vectors]
    images = of_item + _IMAGE_SPREAD * random.normal(size=of_item.shape)
    chosen = images[random.integers(0, vectors, config.queries)]
    queries = chosen + _QUERY_SPREAD * random.normal(size=chosen.shape)
    return unit_length(images), unit_length(queries)


def _nearest_items(
    embeddings: np.ndarray, places: np.ndarray, queries: np.ndarray, k: int
) -> list[set[str]]:
    """Returns the k nearest items of each query among images at some places, by exact search."""
    # Enough to contain k items even if all images of an item are among the nearest.
    count = min(len(places), k * _IMAGES_PER_ITEM)
    found, _ = nearest(queries, embeddings[places], count, np.full(len(queries), -1), places)
    items = places // _IMAGES_PER_ITEM
    return [
        {f"item{item}" for item in list(dict.fromkeys(items[row].tolist()))[:k]} for row in found
    ]


def _product(embeddings: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Returns the places of the k nearest embeddings, nearest first."""
    scores = embeddings @ query
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def _measure(
    config: IndexBenchmark, settings: IndexSettings, embeddings: np.ndarray, queries: np.ndarray
) -> dict[str, Any]:
    from apparel_embed.search.build import build_index  # Imports TensorFlow.

    logging.info("building %s", settings.kind)
    places = np.arange(len(embeddings))
    parts = {"": places, "vertical0": places[places // _IMAGES_PER_ITEM % _VERTICALS == 0]}
    model = hashlib.sha256(repr((config, settings)).encode()).hexdigest()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "index.db"
        with open_index(config.index_uri or str(path)) as index:
            empty = Version(model, config.dim, settings=settings)
            seconds, cpu_seconds = timed(
                lambda: build_index(index, empty, made_up_rows(embeddings), switch=False)
            )
            version = index.version(model)
            assert version
            figures["kind"] = version.settings.kind
            figures |= {"build_seconds": seconds, "build_cpu_seconds": cpu_seconds}
            before = memory_mb("VmRSS")
            index.search(version, queries[0], config.k)
            after = memory_mb("VmRSS")
            for vertical, some in parts.items():
                name = "_in_vertical" if vertical else ""
                found = _ask(index, version, embeddings[some], queries, config.k, vertical or None)
                exact = _nearest_items(embeddings, some, queries, config.k)
                hits = sum(len(one & wanted) for one, wanted in zip(found.pop("items"), exact))
                figures |= {f"{key}{name}": value for key, value in found.items()}
                figures[f"recall{name}"] = hits / sum(map(len, exact))
        size = sum(file.stat().st_size for file in path.parent.iterdir())
    figures["disk_mb"] = None if config.index_uri else size / 1e6
    figures["memory_mb"] = None if before is None or after is None else after - before
    return figures


def _ask(
    index: VectorIndex,
    version: Version,
    embeddings: np.ndarray,
    queries: np.ndarray,
    k: int,
    vertical: str | None,
) -> dict[str, Any]:
    """Returns median ms of searches and of `_product`, in turns, and the items found."""
    times: list[tuple[float, float]] = []
    items = []
    for query in queries:
        start = time.perf_counter()
        hits = index.search(version, query, k, vertical=vertical)
        middle = time.perf_counter()
        _product(embeddings, query, k)
        times.append((middle - start, time.perf_counter() - middle))
        items.append({hit.image.item for hit in hits})
    search, product = (1000 * statistics.median(one) for one in zip(*times))
    return {"query_ms": search, "numpy_ms": product, "ratio": search / product, "items": items}


def made_up_rows(embeddings: np.ndarray) -> Iterator[tuple[list[IndexedImage], np.ndarray]]:
    """Yields made-up images of items with their embeddings, in parts."""
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        some = embeddings[start : start + _ROWS_AT_ONCE]
        places = range(start, start + len(some))
        yield [_image(place, place // _IMAGES_PER_ITEM) for place in places], some


def _image(place: int, item: int) -> IndexedImage:
    vertical = f"vertical{item % _VERTICALS}"
    image = f"images/{place}.jpg"
    return IndexedImage(image_key(image), image, f"item{item}", vertical)
