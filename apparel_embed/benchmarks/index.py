"""The index on many vectors: how long it takes, how large it is, and what it misses."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from rich import box
from rich.table import Table

from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.common.text import plain_text
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.search.build import build_index
from apparel_embed.search.index import IndexedPicture, IndexSettings, Version, open_index

_ROWS_AT_ONCE = 2_000
_PICTURES_PER_ITEM = 10
_VERTICALS = 8
# How far pictures lie from their item, and queries from a picture, against the item's own length.
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


@dataclasses.dataclass(frozen=True)
class IndexMeasurement:
    """What was found of one kind of index.

    Attributes:
      kind: of index.
      build_seconds: from the first vector to the switch.
      query_ms: median of a search in all verticals.
      query_in_vertical_ms: median of a search in one of 8 verticals.
      megabytes: on disk, 10^6 bytes.
      recall: share of the k nearest items of that vertical that are found.
    """

    kind: str
    build_seconds: float
    query_ms: float
    query_in_vertical_ms: float
    megabytes: float
    recall: float


def run_index_benchmark(config: IndexBenchmark) -> list[IndexMeasurement]:
    """Builds and asks every index, each in a file of its own that is removed afterwards."""
    embeddings, queries = synthetic_embeddings(config)
    items = _nearest_items(config, embeddings, queries)
    todo = progress_bar(config.settings, what="measure", unit="indices")
    return [_measure(config, settings, embeddings, queries, items) for settings in todo]


def synthetic_embeddings(config: IndexBenchmark) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors in clusters, as pictures of items are, and queries near some of them.

    Returns:
      float32 [vectors, dim] and [queries, dim].
    """
    random = np.random.default_rng(config.seed)
    items = random.normal(size=(-(-config.vectors // _PICTURES_PER_ITEM), config.dim))
    of_item = np.repeat(items, _PICTURES_PER_ITEM, axis=0)[: config.vectors]
    pictures = of_item + _PICTURE_SPREAD * random.normal(size=of_item.shape)
    chosen = pictures[random.integers(0, config.vectors, config.queries)]
    queries = chosen + _QUERY_SPREAD * random.normal(size=chosen.shape)
    return _unit(pictures), _unit(queries)


def table_of(found: Sequence[IndexMeasurement], config: IndexBenchmark) -> str:
    """Returns the measurements as text."""
    table = Table(
        title=f"{config.vectors:,} vectors of {config.dim} numbers, {config.queries} queries",
        box=box.SIMPLE,
    )
    headings = ("index", "build s", "query ms", "in a vertical ms", "MB", f"recall@{config.k}")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for one in found:
        table.add_row(
            one.kind,
            f"{one.build_seconds:.1f}",
            f"{one.query_ms:.1f}",
            f"{one.query_in_vertical_ms:.1f}",
            f"{one.megabytes:.1f}",
            f"{one.recall:.4f}",
        )
    return plain_text(table, width=100)


def _nearest_items(
    config: IndexBenchmark, embeddings: np.ndarray, queries: np.ndarray
) -> list[set[str]]:
    """Returns the k nearest items of the first vertical to each query, by looking at all."""
    places = np.arange(len(embeddings))
    items = places // _PICTURES_PER_ITEM
    within = places[items % _VERTICALS == 0]
    # However many images of an item are the nearest, k items are among these.
    count = min(len(within), config.k * _PICTURES_PER_ITEM)
    found, _ = nearest(queries, embeddings[within], count, np.full(len(queries), -1), within)
    return [
        {f"item{item}" for item in list(dict.fromkeys(items[within[row]]))[: config.k]}
        for row in found
    ]


def _measure(
    config: IndexBenchmark,
    settings: IndexSettings,
    embeddings: np.ndarray,
    queries: np.ndarray,
    nearest_items: list[set[str]],
) -> IndexMeasurement:
    logging.info("building %s", settings.kind)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "index.db"
        with open_index(str(path)) as index:
            version = Version("0" * 64, config.dim, settings=settings)
            start = time.perf_counter()
            version = build_index(index, version, _rows(embeddings)).version
            build_seconds = time.perf_counter() - start
            index.search(version, queries[0], config.k)
            seconds: list[float] = []
            within: list[float] = []
            found = 0
            for query, exact in zip(queries, nearest_items):
                start = time.perf_counter()
                index.search(version, query, config.k)
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
                hits = index.search(version, query, config.k, vertical="vertical0")
                within.append(time.perf_counter() - start)
                found += len({hit.picture.item for hit in hits} & exact)
        size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    return IndexMeasurement(
        version.settings.kind,
        build_seconds,
        1000 * statistics.median(seconds),
        1000 * statistics.median(within),
        size / 1e6,
        found / sum(map(len, nearest_items)),
    )


def _rows(embeddings: np.ndarray) -> Iterator[tuple[list[IndexedPicture], np.ndarray]]:
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        some = embeddings[start : start + _ROWS_AT_ONCE]
        items = [(start + place) // _PICTURES_PER_ITEM for place in range(len(some))]
        yield (
            [
                IndexedPicture(
                    f"{start + place:032x}",
                    f"{start + place}.jpg",
                    f"item{item}",
                    f"vertical{item % _VERTICALS}",
                )
                for place, item in enumerate(items)
            ],
            some,
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
