"""A SavedModel in this process, behind the interface of the client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.errors import UserError
from apparel_embed.serving.embeddings import Embeddings
from apparel_embed.serving.saved_model import read_verticals


class LocalModel:
    """Embeds encoded pictures by a SavedModel; may be called from several threads.

    Args:
      directory: of one version, such as `runs/mine/saved_model/1`.
      batch_size: pictures that go through the model at once, 1 or more.

    Raises:
      UserError: if there is no SavedModel, or not one of this package.

    Example:
      >>> model = LocalModel(Path("runs/mine/saved_model/1"))
      >>> embeddings, valid, vertical_scores = model.embed([picture_bytes])
    """

    def __init__(self, directory: Path, batch_size: int = 32) -> None:
        directory = Path(directory)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; allowed is 1 or more")
        if not (directory / "saved_model.pb").is_file():
            raise UserError(f"{directory}: no SavedModel here (saved_model.pb is missing)")
        try:
            self._loaded = tf.saved_model.load(str(directory))
            self._serve = self._loaded.signatures["serving_default"]
            self._dim = self._serve.structured_outputs["embedding"].shape[-1]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{directory}: the SavedModel cannot be used: {reason}") from error
        self._batch_size = batch_size
        self._verticals = read_verticals(directory)

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals, in the order of `vertical_scores`."""
        return self._verticals

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._dim

    def embed(self, pictures: Sequence[bytes]) -> Embeddings:
        """Embeds encoded pictures.

        Args:
          pictures: JPEG, PNG, GIF or BMP, any number; what is no picture harms no other.
        """
        found = [
            self._serve(image_bytes=tf.constant(pictures[start : start + self._batch_size]))
            for start in range(0, len(pictures), self._batch_size)
        ]
        if not found:
            found = [self._serve(image_bytes=tf.zeros([0], tf.string))]
        joined = {name: np.concatenate([one[name].numpy() for one in found]) for name in found[0]}
        return Embeddings(joined["embedding"], joined["valid"], joined.get("vertical"))
