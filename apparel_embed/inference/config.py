"""How images are embedded."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """How images are embedded, whatever for; it changes no result beyond its last digits."""

    batch_size: int = setting(
        64,
        "images that go through a model at once where they are embedded: for validation, targets "
        "and evaluation; the result does not depend on it",
        1,
        65536,
        flag="embedding_batch_size",
        seldom=True,
    )
