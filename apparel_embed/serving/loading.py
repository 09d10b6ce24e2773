"""Models on disk, of a run or exported, as functions from pictures in files to embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.serving.saved_model import ServingModule

_SAVED_MODEL = "saved_model.pb"
_MODEL = "model.json"
_SIGNATURE = "serving_default"
_BYTES_AT_ONCE = 1 << 24


class PictureEmbedder:
    """Embeds pictures as they are in files, by the graph that is served.

    Args:
      module: what keeps the graph's variables.
      embed: from `image_bytes` string [n] to `embedding` [n, dim] and `valid` [n].
      dim: length of an embedding.
    """

    def __init__(self, module: tf.Module, embed: tf.types.experimental.GenericFunction, dim: int):
        self._module = module
        self._embed = embed
        self.dim = dim

    def __call__(self, pictures: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings float32 [n, dim], and bool [n], false where there is no picture."""
        found = self._embed(image_bytes=tf.constant(pictures, tf.string))
        return found["embedding"].numpy(), found["valid"].numpy()


def find_model(location: str) -> str:
    """Returns the directory that holds a model's files.

    Args:
      location: a stage of a run, its `model` directory, a SavedModel, or a directory of its
        versions, of which the last is taken; SavedModels may be in a store.

    Raises:
      UserError: there is no model.
    """
    files = tf.io.gfile
    location = location.rstrip("/")
    try:
        names = files.listdir(location)
    except tf.errors.OpError as error:
        raise UserError(f"--model={location}: no such directory") from error
    versions = sorted((name.strip("/") for name in names if name.strip("/").isdecimal()), key=int)
    for directory in (location, f"{location}/model", *(f"{location}/{v}" for v in versions[-1:])):
        if any(files.exists(f"{directory}/{name}") for name in (_SAVED_MODEL, _MODEL)):
            return directory
    raise UserError(
        f"--model={location}: no model here; a SavedModel ({_SAVED_MODEL}) or a stage of a run "
        f"(model/{_MODEL}) is needed"
    )


def model_fingerprint(location: str) -> str:
    """Returns the SHA-256 (hex) of a model's files, wherever they lie.

    Raises:
      UserError: there is no model.
    """
    total = hashlib.sha256()
    directory = find_model(location)
    for parent, _, names in sorted(tf.io.gfile.walk(directory)):
        for name in sorted(names):
            total.update(f"{parent[len(directory) :]}/{name}\0".encode())
            with tf.io.gfile.GFile(f"{parent}/{name}", "rb") as file:
                while block := file.read(_BYTES_AT_ONCE):
                    total.update(block)
    return total.hexdigest()


def load_picture_embedder(location: str) -> PictureEmbedder:
    """Loads a model.

    Args:
      location: as in `find_model`.

    Raises:
      UserError: there is no model, or it cannot be read, or it does not take pictures as they are
        in files.
    """
    directory = find_model(location)
    if not tf.io.gfile.exists(f"{directory}/{_SAVED_MODEL}"):
        model, _ = load_embedding_model(Path(directory))
        module = ServingModule(model)
        return PictureEmbedder(
            module, module.embed_bytes.get_concrete_function(), model.output_shape[-1]
        )
    try:
        module = tf.saved_model.load(directory)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{directory}: the SavedModel cannot be read: {one_line(error)}") from error
    embed = module.signatures.get(_SIGNATURE)
    takes = set(embed.structured_input_signature[1]) if embed else set()
    gives = embed.structured_outputs if embed else {}
    if takes != {"image_bytes"} or not {"embedding", "valid"} <= set(gives):
        raise UserError(
            f"{directory}: its signature {_SIGNATURE!r} does not make `embedding` and `valid` of "
            "`image_bytes`; export the model with tools/export_saved_model.py"
        )
    return PictureEmbedder(module, embed, gives["embedding"].shape[-1])
