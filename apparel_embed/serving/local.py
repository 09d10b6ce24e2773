"""A SavedModel in this process, behind the interface of the client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.serving.embeddings import Embeddings, embed_in_batches
from apparel_embed.serving.pictures import PictureLimits
from apparel_embed.serving.saved_model import read_verticals


class LocalModel:
    """Embeds encoded pictures by a SavedModel; may be called from several threads.

    Args:
      directory: of one version, such as `runs/mine/saved_model/1`.
      batch_size: pictures that go through the model at once, 1 or more.
      limits: what pictures are taken.

    Raises:
      UserError: if there is no SavedModel, or not one of this package.

    Example:
      >>> model = LocalModel("runs/mine/saved_model/1")
      >>> found = model.embed([Path("dress.webp").read_bytes(), b"no picture"])
      >>> found.embeddings.shape, found.valid
      ((2, 8), array([ True, False]))
    """

    def __init__(
        self,
        directory: str | Path,
        batch_size: int = 32,
        limits: PictureLimits = PictureLimits(),
    ) -> None:
        directory = Path(directory)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; allowed is 1 or more")
        if not (directory / "saved_model.pb").is_file():
            raise UserError(f"{directory}: no SavedModel here (saved_model.pb is missing)")
        try:
            # Kept, as signatures do not keep the variables they use.
            self._loaded = tf.saved_model.load(str(directory))
            self._serve = self._loaded.signatures["serving_default"]
            self._dim = int(self._serve.structured_outputs["embedding"].shape[-1])
        except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{directory}: the SavedModel cannot be used: {reason}") from error
        self._batch_size = batch_size
        self._limits = limits
        self._verticals = read_verticals(directory)

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals that the model knows, in the order of `vertical_scores`."""
        return self._verticals

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._dim

    def embed(self, pictures: Sequence[bytes]) -> Embeddings:
        """Embeds encoded pictures, any number.

        Args:
          pictures: files' bytes, of any format that Pillow reads; what is no picture, or too large
            a one, is answered as not valid and harms no other.

        Returns:
          Embeddings float32 [n, dim] of unit length, whether there was a picture bool [n], and the
          probabilities of verticals float32 [n, verticals], or None without a vertical head.
        """
        return embed_in_batches(
            pictures,
            self._predict,
            limits=self._limits,
            batch_size=self._batch_size,
            batch_bytes=2**30,
        )

    def _predict(self, pictures: list[bytes]) -> dict[str, np.ndarray]:
        found = self._serve(image_bytes=tf.constant(pictures, tf.string))
        return {name: values.numpy() for name, values in found.items()}
