"""Images and embeddings for an index, without a model."""

from __future__ import annotations

import numpy as np

from apparel_embed.search.index import IndexedImage


def unit_vectors(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Returns random embeddings: float32 [count, dim]."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_images(count: int, verticals: tuple[str, ...] = ("bag",)) -> list[IndexedImage]:
    """Returns images, three per item."""
    return [
        IndexedImage(
            f"{place:032x}", f"{place}.jpg", f"item{place // 3}", verticals[place % len(verticals)]
        )
        for place in range(count)
    ]
