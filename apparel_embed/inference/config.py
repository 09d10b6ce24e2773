"""Settings for embedding images."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig:
    """How images are embedded, for any purpose; it changes results only in their last digits."""

    batch_size: int = setting(
        64,
        "images per batch when embedding for validation, targets and evaluation; results do not "
        "depend on it",
        1,
        65536,
        flag="embedding_batch_size",
        rare=True,
    )
