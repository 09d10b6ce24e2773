"""TensorBoard summaries of a training in addition to loss, learning rate and validation.

They do not change the results of steps: batches are measured outside the step, and rarely.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.data.labelled_sheet import draw_labelled_sheet
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import PKSampler
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.losses.distances import pairwise_distances
from apparel_embed.losses.replicas import gather_replicas
from apparel_embed.training.input import Augment, Sampler, first_images

# Images measured in a batch: the number of distances grows with their square.
_MOST_MEASURED = 1024
_MOST_SHOWN = 64
_COLUMNS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """Numbers that describe a batch, by name.

    Attributes:
      scalars: scalars that could be measured.
      histograms: values, float [n].
    """

    scalars: Mapping[str, float]
    histograms: Mapping[str, np.ndarray]

    def write(self, step: int) -> None:
        """Writes the measures to the default summary writer, for a step counted from 1."""
        for name, value in self.scalars.items():
            tf.summary.scalar(name, value, step)
        for name, values in self.histograms.items():
            # TensorBoard cannot show histograms of values that are not finite.
            finite = values[np.isfinite(values)]
            if len(finite):
                tf.summary.histogram(name, finite, step)


def active_share(distances: np.ndarray, labels: np.ndarray, margin: float) -> float | None:
    """Returns the share of active triplets among all of a batch, whichever ones the loss mines.

    A triplet is an anchor a, another image p of its item and an image n of another one; it is
    active if d(a, p) + margin > d(a, n).

    Args:
      distances: float [n, n].
      labels: [n], item of each image.
      margin: how much farther a negative should be than a positive.

    Returns:
      0 to 1; None if there are no triplets.
    """
    active = every = 0
    for anchor, label in enumerate(labels):
        same = labels == label
        negatives = np.sort(distances[anchor, ~same])
        same[anchor] = False
        positives = distances[anchor, same]
        active += int(np.searchsorted(negatives, positives + margin, side="left").sum())
        every += len(positives) * len(negatives)
    return active / every if every else None


def spread(embeddings: np.ndarray) -> float:
    """Returns the spread of embeddings: the root of their mean squared distance to their mean.

    Args:
      embeddings: float [n, dim], n at least 1.

    Returns:
      0 if all are equal. For unit vectors at most 1, which means that their mean is the origin and
      the mean squared distance of two is 2.
    """
    points = embeddings.astype(np.float64)
    return float(np.sqrt(np.mean(np.sum((points - points.mean(axis=0)) ** 2, axis=1))))


def triplet_measures(
    labels: np.ndarray, embeddings: np.ndarray, norms: np.ndarray, *, margin: float, distance: str
) -> Measures:
    """Returns the measures of a batch of triplets; `margin` and `distance` are the loss's.

    Args:
      labels: int [n], item of each image.
      embeddings: float32 [n, dim], of unit length.
      norms: float32 [n], lengths of the embeddings before they were scaled to 1.
      margin: how much farther a negative should be than a positive.
      distance: a name in `DISTANCES`.
    """
    labels, embeddings = labels[:_MOST_MEASURED], embeddings[:_MOST_MEASURED]
    distances = pairwise_distances(embeddings, distance).numpy()
    # Counts each pair once.
    ones, others = np.triu_indices(len(labels), k=1)
    between, is_positive = distances[ones, others], labels[ones] == labels[others]
    sides = {"positives": between[is_positive], "negatives": between[~is_positive]}
    scalars = {
        **{f"distances/mean_to_{side}": float(of.mean()) for side, of in sides.items() if len(of)},
        **_of_embeddings(embeddings, norms),
    }
    share = active_share(distances, labels, margin)
    if share is not None:
        scalars["triplets/active_share"] = share
    histograms = {f"distances/to_{side}": of for side, of in sides.items()}
    return Measures(scalars, {**histograms, "embeddings/norms": norms})


def target_measures(targets: np.ndarray, embeddings: np.ndarray, norms: np.ndarray) -> Measures:
    """Returns the measures of a student's batch.

    Args:
      targets: float32 [n, dim], the teachers' embeddings, of any length except 0.
      embeddings: float32 [n, dim], the student's embeddings, of unit length.
      norms: float32 [n], lengths of the student's embeddings before they were scaled to 1.
    """
    distances = np.linalg.norm(targets - embeddings, axis=1)
    lengths = np.linalg.norm(targets, axis=1) * np.linalg.norm(embeddings, axis=1)
    cosines = np.sum(targets * embeddings, axis=1) / np.maximum(lengths, 1e-12)
    return Measures(
        {
            "targets/mean_cosine": float(cosines.mean()),
            "targets/mean_distance": float(distances.mean()),
            "targets/spread": spread(targets),
            **_of_embeddings(embeddings, norms),
        },
        {"targets/distances": distances, "embeddings/norms": norms},
    )


def _of_embeddings(embeddings: np.ndarray, norms: np.ndarray) -> dict[str, float]:
    return {
        "embeddings/spread": spread(embeddings),
        "embeddings/mean_norm_before_scaling": float(norms.mean()),
    }


def first_batch_sheet(
    dataset: PreparedDataset,
    records: np.ndarray,
    store: ImageStore,
    sampler: Sampler,
    augment: Augment,
) -> np.ndarray:
    """Draws the first images of the first step's batch with item and vertical below each.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers; positions in the store are indices into them.
      store: the images.
      sampler: chooses the images of each step's batch.
      augment: maps a batch's inputs to images.

    Returns:
      uint8 [height, width, 3]; with a `PKSampler`, the images of an item are on one line.
    """
    positions, images, _ = first_images(store, sampler, augment, _MOST_SHOWN)
    rows = dataset.index.select(["item_id", "vertical"]).take(records[positions]).to_pylist()
    columns = _COLUMNS
    if isinstance(sampler, PKSampler):
        columns = max(_COLUMNS // sampler.images_per_item, 1) * sampler.images_per_item
    captions = [(row["item_id"] or "unlabelled", row["vertical"]) for row in rows]
    return draw_labelled_sheet(images, captions, min(columns, _MOST_SHOWN))


Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], Measures]
"""See `BatchSummaries`."""


@dataclasses.dataclass(frozen=True)
class BatchSummaries:
    """Summaries of a training's batches.

    Attributes:
      measure: maps labels or targets [batch, ...], embeddings [batch, dim] and their lengths before
        they were scaled to 1 [batch] to the measures to log; None to log none.
      first_batch: returns a sheet of augmented images, uint8 [height, width, 3].
    """

    measure: Measure | None
    first_batch: Callable[[], np.ndarray]


def write_start(graph: tf.Graph, first_batch: np.ndarray) -> None:
    """Writes the graph of a model and the images of the first batch, uint8 [height, width, 3]."""
    tf.summary.graph(graph)
    tf.summary.image("first_batch", first_batch[np.newaxis], 0)


class Observer:
    """Measures a training's batches and writes the measures to the default summary writer.

    Batches are embedded as in inference, without dropout and with the moving statistics of batch
    norm, with the weights after the step. The model is not changed.

    Args:
      measure: as in `BatchSummaries`.
      unscaled: maps the output of `augment` to embeddings before and after scaling to 1.
      augment: maps a batch's inputs to images.
      strategy: the strategy that the model was created in.
    """

    def __init__(
        self,
        measure: Measure,
        unscaled: tf.keras.Model,
        augment: Callable[[Any], tf.Tensor],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._measure = measure
        self._strategy = strategy

        def of_replica(inputs: Any, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            vectors, embeddings = unscaled(augment(inputs), training=False)
            norms = tf.norm(vectors, axis=-1, keepdims=True)
            return gather_replicas(labels, tf.concat([embeddings, norms], axis=1))

        self._embed = tf.function(lambda batch: strategy.run(of_replica, args=batch))

    def observe(self, batch: tuple, step: int) -> None:
        """Writes the measures of a batch (inputs, labels or targets) of a step counted from 1."""
        # All replicas have the whole batch.
        labels, found = (
            self._strategy.experimental_local_results(one)[0].numpy() for one in self._embed(batch)
        )
        self._measure(labels, found[:, :-1], found[:, -1]).write(step)


class Profiler(contextlib.AbstractContextManager):
    """Profiles some of a training's steps, including their input.

    Use it in a `with` block, at whose end a profile in progress is written.

    Args:
      steps: the first step to profile, counted from 0, and the one after the last; None for none.
      directory: directory of TensorBoard's files.
      what: name of the training, for messages.
    """

    def __init__(self, steps: tuple[int, int] | None, directory: Path, what: str) -> None:
        self._steps = range(*steps) if steps else range(0)
        self._directory = directory
        self._what = what
        self._running = False

    def __exit__(self, *error: object) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()
            logging.info("%s: profile written to %s", self._what, self._directory)

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Marks the block as a step, counted from 0, and profiles it if it is one of `steps`."""
        if number not in self._steps:
            yield
            return
        if not self._running:
            tf.profiler.experimental.start(str(self._directory))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number == self._steps[-1]:
            self.__exit__()
