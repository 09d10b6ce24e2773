"""Benchmark of a nightly delta of a large index: its time, and searches in the meantime."""

from __future__ import annotations

import csv
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from apparel_embed.benchmarks.index import IndexBenchmark, made_up_rows, synthetic_embeddings
from apparel_embed.data.images import ImageSettings
from apparel_embed.search.index import VectorIndex, Version, open_index

_SIDE = 64
_MODEL = "d" * 64
_NIGHT = ("added", "changed", "removed", "embedded")
# Shares of a night's rows; the others are new images.
_REMOVED, _CHANGED = 0.2, 0.2


def measure_delta(config: IndexBenchmark) -> dict[str, Any]:
    """Applies a night's delta of generated images to an index of made-up vectors, twice.

    The model is a small untrained network. Meanwhile another thread searches with its own reader,
    as the service does.

    Returns:
      `images` before; `added`, `changed`, `removed`, `embedded` and `seconds` of the delta;
      `embedded_again` and `seconds_again` of the same delta applied again; `searches` answered in
      the meantime, `slowest_ms` of them, and `failures`.
    """
    from apparel_embed.models.embedding import ModelConfig, build_embedding_model
    from apparel_embed.search.build import build_index
    from apparel_embed.search.delta import apply_delta
    from apparel_embed.serving.local import LocalModel
    from apparel_embed.serving.saved_model import ExportConfig, export_saved_model

    embeddings, queries = synthetic_embeddings(config)
    logging.info("a night of %d images", config.night)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        network = build_embedding_model(
            ModelConfig("small_cnn", image_size=_SIDE, embedding_dim=config.dim)
        )
        export_saved_model(network, place / "model", ExportConfig(warm_up=False))
        model = LocalModel(place / "model")
        # One-time work of a process is not part of a delta.
        model.embed([])
        night = _night(config, place)
        with open_index(str(place / "index.db")) as index:
            built = build_index(index, Version(_MODEL, config.dim), made_up_rows(embeddings))
            figures: dict[str, Any] = {"images": built.version.images}
            searching = _Searching(place / "index.db", queries, config.k)
            for again, counted in (("", _NIGHT), ("_again", ("embedded",))):
                current = index.current()
                assert current
                start = time.perf_counter()
                done = apply_delta(
                    index,
                    current,
                    night,
                    ImageSettings(),
                    lambda images: model.embed(images)[:2],
                    most_removed=1.0,
                )
                figures[f"seconds{again}"] = time.perf_counter() - start
                figures |= {f"{what}{again}": done.counts[what] for what in counted}
            return {**figures, **searching.end()}


def _night(config: IndexBenchmark, place: Path) -> Path:
    """Writes the images of a delta and the delta, and returns its path."""
    random = np.random.default_rng(config.seed)
    removed, changed = (int(config.night * share) for share in (_REMOVED, _CHANGED))
    path = place / "night.csv"
    (place / "images").mkdir()
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["change", "image", "item_id", "vertical"])
        # An item has ten images; the last images are removed and the first changed.
        rows.writerows(
            ["remove", f"images/{config.vectors - 1 - number}.jpg", "", ""]
            for number in range(removed)
        )
        for number in range(config.night - removed):
            image = number if number < changed else config.vectors + number
            colours = random.integers(0, 256, (4, 4, 3), np.uint8)
            drawn = Image.fromarray(colours).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            drawn.save(place / f"images/{image}.jpg")
            rows.writerow(["add", f"images/{image}.jpg", f"new{image}", "vertical0"])
    return path


class _Searching:
    """Searches in a thread until `end` is called."""

    def __init__(self, path: Path, queries: np.ndarray, k: int) -> None:
        self._ended = threading.Event()
        self._times: list[float] = []
        self._failures = 0
        self._thread = threading.Thread(target=self._work, args=(path, queries, k))
        self._thread.start()

    def end(self) -> dict[str, Any]:
        """Stops the searches and returns their number, the slowest in ms, and failures."""
        self._ended.set()
        self._thread.join()
        slowest = 1000 * max(self._times, default=0.0)
        return {"searches": len(self._times), "slowest_ms": slowest, "failures": self._failures}

    def _work(self, path: Path, queries: np.ndarray, k: int) -> None:
        with open_index(str(path), to_read=True) as index:
            while not self._ended.is_set():
                start = time.perf_counter()
                if self._is_answered(index, queries[len(self._times) % len(queries)], k):
                    self._times.append(time.perf_counter() - start)
                else:
                    self._failures += 1

    def _is_answered(self, index: VectorIndex, query: np.ndarray, k: int) -> bool:
        try:
            version = index.current()
            return version is not None and len(index.search(version, query, k)) == k
        except Exception:  # Any failure is counted, and the next search is tried.
            logging.exception("a search failed")
            return False
