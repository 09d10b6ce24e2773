"""The first batch as a picture: what a training is shown, augmented, with its labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.data.labelled_sheet import draw_labelled_sheet
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.training.input import first_pictures

MOST_PICTURES = 64
_COLUMNS = 8


def first_batch_sheet(
    dataset: PreparedDataset,
    records: np.ndarray,
    store: ImageStore,
    sampler: PKSampler | EpochSampler | WeightedSampler,
    augment: Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor],
) -> np.ndarray:
    """Draws the pictures of the first step's batch with item and vertical below each.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers; positions in the store count along them.
      store: the pictures.
      sampler: which of them make the batch of a step.
      augment: from a batch's inputs to images float32 [batch, size, size, 3].

    Returns:
      uint8 [height, width, 3], of the batch's first `MOST_PICTURES`. Pictures of an item are in a
      line where the sampler puts them side by side.
    """
    positions, images = first_pictures(store, sampler, augment, MOST_PICTURES)
    rows = dataset.index.select(["item_id", "vertical"]).take(records[positions]).to_pylist()
    columns = _COLUMNS
    if isinstance(sampler, PKSampler):
        columns = max(_COLUMNS // sampler.pictures_per_item, 1) * sampler.pictures_per_item
    captions = [(row["item_id"] or "unlabelled", row["vertical"]) for row in rows]
    return draw_labelled_sheet(images, captions, min(columns, MOST_PICTURES))
