"""Export of an embedding model as a SavedModel that needs nothing of this package."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

from apparel_embed.errors import UserError
from apparel_embed.models.preprocessing import decode_to_square, fit_square


class ServingModule(tf.Module):
    """An embedding model with its preprocessing in the graph, under two signatures.

    Args:
      model: from float32 [batch, size, size, 3], values 0..255, to embeddings [batch, dim].
    """

    def __init__(self, model: tf.keras.Model) -> None:
        super().__init__()
        self.model = model
        self._size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def embed_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds encoded pictures.

        Args:
          image_bytes: string [batch]; JPEG, PNG, GIF or BMP of any size.

        Returns:
          `embedding` float32 [batch, dim], of unit length, and `valid` bool [batch]: false, with
          an embedding of zeros, where the bytes are no picture.
        """
        images, valid = _decode_each(image_bytes, self._size)
        embeddings = self.model(tf.cast(images, tf.float32), training=False)
        embeddings = tf.where(valid[:, tf.newaxis], embeddings, tf.zeros_like(embeddings))
        count = tf.shape(image_bytes)[0]
        return {"embedding": embeddings[:count], "valid": valid[:count]}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def embed_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds decoded pictures of one size.

        Args:
          images: uint8 [batch, height, width, 3], RGB.

        Returns:
          `embedding` float32 [batch, dim], of unit length.
        """
        count = tf.shape(images)[0]
        # Convolutions fail on a batch of none: a stand-in makes it one.
        missing = tf.maximum(1 - count, 0)
        squares = fit_square(tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]), self._size)
        embeddings = self.model(tf.cast(squares, tf.float32), training=False)
        return {"embedding": embeddings[:count]}


def export_saved_model(model: tf.keras.Model, directory: Path) -> None:
    """Writes a SavedModel with the signatures `serving_default` and `embed_images`.

    Args:
      model: an embedding model.
      directory: where to; TensorFlow Serving wants its name to be a version number.

    Raises:
      UserError: if the directory exists.
    """
    if directory.exists():
        raise UserError(f"{directory}: exists; name another directory, e.g. the next version")
    module = ServingModule(model)
    partial = directory.with_name(f"{directory.name}.partial")
    # What an interrupted export left would stay beside the new files.
    shutil.rmtree(partial, ignore_errors=True)
    tf.saved_model.save(
        module,
        str(partial),
        signatures={
            "serving_default": module.embed_bytes,
            "embed_images": module.embed_images,
        },
    )
    partial.rename(directory)


def _decode_each(image_bytes: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes pictures one by one, so that a broken one harms no other.

    A decoding op fails the whole batch. Inside a tf.data pipeline the failure can be confined:
    each picture is a dataset of its own, which is empty if decoding fails, followed by a
    stand-in that takes the place of a picture that is missing.

    Returns:
      uint8 [batch, size, size, 3] and bool [batch], false for stand-ins. An empty request gives
      one stand-in, as convolutions fail on a batch of none.
    """
    stand_in = tf.data.Dataset.from_tensors(
        (tf.zeros([size, size, 3], tf.uint8), tf.constant(False))
    )

    def one(bytes_of_one: tf.Tensor) -> tf.data.Dataset:
        decoded = tf.data.Dataset.from_tensors(bytes_of_one).map(
            lambda encoded: (decode_to_square(encoded, size), tf.constant(True))
        )
        return decoded.ignore_errors(log_warning=False).concatenate(stand_in).take(1)

    pictures = tf.data.Dataset.from_tensor_slices(image_bytes).interleave(
        one, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    count = tf.maximum(tf.shape(image_bytes, out_type=tf.int64)[0], 1)
    return pictures.concatenate(stand_in).batch(count).take(1).get_single_element()
