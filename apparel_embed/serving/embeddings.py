"""What a served model answers, whether it runs in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from apparel_embed.serving.errors import PictureError
from apparel_embed.serving.pictures import PictureLimits, to_servable


class Embeddings(NamedTuple):
    """The answer to a list of pictures, in their order.

    Attributes:
      embeddings: float32 [n, dim], of unit length; zeros where a picture is not valid.
      valid: bool [n], whether there was a picture that could be embedded.
      vertical_scores: float32 [n, verticals], the probability of every vertical, zeros where a
        picture is not valid; None if the model was exported without `--vertical_head`.
    """

    embeddings: np.ndarray
    valid: np.ndarray
    vertical_scores: np.ndarray | None


Predict = Callable[[list[bytes]], Mapping[str, np.ndarray]]
"""From a batch of pictures to the outputs of `serving_default`, each with a row per picture."""


def embed_in_batches(
    pictures: Sequence[bytes],
    predict: Predict,
    *,
    limits: PictureLimits,
    batch_size: int,
    batch_bytes: int,
) -> Embeddings:
    """Converts pictures where they need it, and asks for their embeddings batch by batch.

    Args:
      pictures: files' bytes; what is no picture, or too large a one, harms no other.
      predict: asks for one batch.
      limits: what pictures are taken.
      batch_size: pictures asked for at once, 1 or more.
      batch_bytes: bytes asked for at once, unless a single picture has more.
    """
    # Without a picture the model is asked for what is none, and so tells how long rows are.
    sent = [_sent(picture, limits) for picture in pictures] or [b""]
    found = [predict(batch) for batch in _batches(sent, batch_size, batch_bytes)]
    joined = {
        name: np.concatenate([one[name] for one in found])[: len(pictures)]
        for name in ("embedding", "valid", "vertical")
        if name in found[0]
    }
    return Embeddings(joined["embedding"], joined["valid"], joined.get("vertical"))


def _sent(picture: bytes, limits: PictureLimits) -> bytes:
    """Returns what is sent of a picture: nothing, which the model answers not valid, of some."""
    try:
        return to_servable(picture, limits)
    except PictureError:
        return b""


def _batches(pictures: Sequence[bytes], batch_size: int, batch_bytes: int) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for picture in pictures:
        full = len(batch) == batch_size or sum(map(len, batch)) + len(picture) > batch_bytes
        if batch and full:
            yield batch
            batch = []
        batch.append(picture)
    yield batch
