"""Export of an embedding model as a SavedModel that does not need this package."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.models.preprocessing import fit_square
from apparel_embed.models.vertical_head import VerticalHead, feature_model
from apparel_embed.serving.decoding import decode_each
from apparel_embed.serving.exported import (
    ALIGNED_FILE,
    DETECT,
    EMBED,
    LARGEST_SERVED_PIXELS,
    MAX_PIXELS,
    ROUTING_FILE,
    THRESHOLDS_FILE,
    VERTICALS_FILE,
    ExportConfig,
)
from apparel_embed.serving.garments import Detector, embed_garments
from apparel_embed.serving.kit import write_warm_up_requests

_MODEL_CARD = "model_card.md"


class ServingModule(tf.Module):
    """An embedding model with its preprocessing in the graph, under two or three signatures.

    Args:
      model: maps float32 [batch, size, size, 3], values 0..255, to embeddings [batch, dim].
      max_pixels: images with more pixels are refused before decoding.
      head: adds scores of verticals; embeddings stay unchanged.
      detector: detects garments, for a third signature that embeds each.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        max_pixels: int = MAX_PIXELS,
        head: VerticalHead | None = None,
        detector: Detector | None = None,
    ) -> None:
        super().__init__()
        both = tf.keras.Model(model.input, [model.output, feature_model(model).output])
        # Variables, not models: saving every layer of a Keras model doubles the time to export and
        # triples the time to load.
        self.weights = [*model.variables, *(detector.model.variables if detector else ())]
        self._call = lambda images: both(tf.cast(images, tf.float32), training=False)
        self._size, self._dim = model.input_shape[1], model.output_shape[-1]
        self._max_pixels = max_pixels
        self._head = head
        # Saving traces all functions of a module, so it must not have this one without a detector.
        self._detect = detector and tf.function(
            functools.partial(self._detect_and_embed, detector),
            input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
        )

    @property
    def served(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The signatures by name."""
        found = {EMBED: self.embed_bytes, "embed_images": self.embed_images}
        return {**found, DETECT: self._detect} if self._detect else found

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def embed_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds encoded images.

        Args:
          image_bytes: string [batch]; JPEG, PNG, GIF or BMP of at most `max_pixels`.

        Returns:
          `embedding` float32 [batch, dim], of unit length, and `valid` bool [batch]: false, with
          an embedding of zeros, if the bytes are not a valid image. With a head also `vertical`
          float32 [batch, verticals], probabilities (zeros for invalid images), and `vertical_name`
          string [batch, verticals], their names.
        """
        images, valid = decode_each(image_bytes, self._size, self._max_pixels)
        embeddings, features = self._call(images)
        found = {"embedding": _zeros_unless(valid, embeddings), "valid": valid}
        if self._head:
            logits = tf.matmul(tf.cast(features, tf.float32), self._head.weights) + self._head.bias
            found["vertical"] = _zeros_unless(valid, tf.nn.softmax(logits))
            # Included in every answer, as in TensorFlow's classification signatures, so that a
            # client is never out of step with the model.
            found["vertical_name"] = tf.tile([self._head.verticals], [tf.shape(images)[0], 1])
        count = tf.shape(image_bytes)[0]
        return {name: values[:count] for name, values in found.items()}

    def _detect_and_embed(self, detector: Detector, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Finds the garments in encoded images and embeds each; see `embed_garments`."""
        found = embed_garments(
            image_bytes,
            detector,
            lambda crops: self._call(crops)[0],
            self._size,
            self._dim,
            self._max_pixels,
        )
        count = tf.shape(image_bytes)[0]
        return {name: values[:count] for name, values in found.items()}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def embed_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds decoded images of equal size.

        Args:
          images: uint8 [batch, height, width, 3], RGB.

        Returns:
          `embedding` float32 [batch, dim], of unit length.
        """
        count = tf.shape(images)[0]
        # Convolutions fail on an empty batch: pad it to one image.
        missing = tf.maximum(1 - count, 0)
        squares = fit_square(tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]), self._size)
        embeddings, _ = self._call(squares)
        return {"embedding": embeddings[:count]}


def export_saved_model(
    model: tf.keras.Model,
    directory: str | os.PathLike[str],
    config: ExportConfig = ExportConfig(),
    *,
    head: VerticalHead | None = None,
    detector: Detector | None = None,
    verticals: Sequence[str] = (),
    model_card: str = "",
) -> None:
    """Writes a SavedModel with the signatures `serving_default` and `embed_images`.

    Args:
      model: an embedding model.
      directory: directory to create; TensorFlow Serving expects a version number as its name.
      config: how to export.
      head: adds scores of verticals, or None; its routing confidence, if any, is written to the
        asset `routing_confidence.txt`.
      detector: detects the garments in a photograph, for the signature `detect_and_embed`, or None.
      verticals: names of the model's verticals, for the asset `verticals.txt`; ignored with a
        head, which has its own.
      model_card: text of the asset `model_card.md`, which is not written if the text is empty.

    Raises:
      UserError: if the directory exists, or the configuration is invalid.

    Examples:
      >>> from apparel_embed.models.embedding import EmbeddingModel, ModelConfig
      >>> model = EmbeddingModel(ModelConfig(image_size=32, embedding_dim=8))
      >>> export_saved_model(model, "served/1", ExportConfig(warm_up=False))
      >>> sorted(tf.saved_model.load("served/1").signatures)
      ['embed_images', 'serving_default']
    """
    directory = Path(directory)
    if directory.exists():
        raise UserError(f"{directory}: exists; name another directory, e.g. the next version")
    partial = directory.with_name(f"{directory.name}.partial")
    # Files of an interrupted export would remain among the new ones.
    shutil.rmtree(partial, ignore_errors=True)
    write_saved_model(model, partial, config, head, detector, verticals, model_card)
    partial.rename(directory)


def write_saved_model(
    model: tf.keras.Model,
    directory: Path,
    config: ExportConfig,
    head: VerticalHead | None,
    detector: Detector | None,
    verticals: Sequence[str],
    model_card: str,
    aligned_to: Sequence[str] = (),
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Implements `export_saved_model`, writing directly into a directory that is not in use yet.

    `aligned_to` are fingerprints of SavedModels with comparable embeddings, for the asset
    `aligned_to.txt`. `thresholds`, by level and vertical, go to the asset `absent_thresholds.json`.
    """
    if not 1 <= config.max_pixels <= LARGEST_SERVED_PIXELS:
        raise UserError(f"max_pixels is {config.max_pixels}; expected 1 to {LARGEST_SERVED_PIXELS}")
    module = ServingModule(model, config.max_pixels, head, detector)
    assets = {
        VERTICALS_FILE: "".join(f"{name}\n" for name in (head.verticals if head else verticals)),
        _MODEL_CARD: model_card,
        ALIGNED_FILE: "".join(f"{one}\n" for one in aligned_to),
        THRESHOLDS_FILE: json.dumps(thresholds, indent=2) if thresholds else "",
    }
    if head and head.routing_confidence is not None:
        assets[ROUTING_FILE] = f"{head.routing_confidence!r}\n"
    with tempfile.TemporaryDirectory() as temporary:
        module.assets = []
        for name, text in assets.items():
            if text:
                path = Path(temporary) / name
                path.write_text(text, "utf-8")
                module.assets.append(tf.saved_model.Asset(str(path)))
        tf.saved_model.save(module, str(directory), module.served)
    if config.warm_up:
        signatures = [EMBED, DETECT] if detector else [EMBED]
        write_warm_up_requests(directory, model.input_shape[1], signatures)


def _zeros_unless(valid: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(valid[:, tf.newaxis], values, tf.zeros_like(values))
