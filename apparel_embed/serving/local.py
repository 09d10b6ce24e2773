"""Loads exported models, and models of a run, into this process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.inference.bulk_shard import Answer
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.serving.embeddings import ImageLimits, ServedModel
from apparel_embed.serving.exported import DETECT, EMBED, GARMENT_BOX, read_verticals
from apparel_embed.serving.saved_model import ServingModule

_SAVED_MODEL = "saved_model.pb"
_MODEL = "model.json"
_BYTES_AT_ONCE = 1 << 24


class ImageEmbedder:
    """Embeds whole encoded images with the served graph.

    Args:
      module: keeps the graph's variables alive; signatures do not.
      serve: maps `image_bytes` string [n] to `embedding` [n, dim], `valid` [n] and others.
      dim: length of an embedding.
      detect: maps `image_bytes` to the garments in the images, or None.
    """

    fields: Sequence[pa.Field] = ()

    def __init__(
        self,
        module: tf.Module,
        serve: tf.types.experimental.GenericFunction,
        dim: int,
        detect: tf.types.experimental.GenericFunction | None = None,
    ) -> None:
        self._module = module
        self._signatures = {EMBED: serve, **({DETECT: detect} if detect else {})}
        self.dim = dim

    @property
    def detects(self) -> bool:
        """Whether the model detects garments."""
        return DETECT in self._signatures

    def outputs(self, images: Sequence[bytes], signature: str = EMBED) -> dict[str, np.ndarray]:
        """Returns all outputs of the graph by name, each with a row per image."""
        found = self._signatures[signature](image_bytes=tf.constant(images, tf.string))
        return {name: values.numpy() for name, values in found.items()}

    def __call__(self, images: Sequence[bytes]) -> Answer:
        """Embeds whole images."""
        found = self.outputs(images)
        return Answer(np.arange(len(images)), found["embedding"], found["valid"])


class GarmentEmbedder:
    """Embeds every garment detected in images, with the served graph.

    Args:
      embedder: embedder of a model with a detector.
    """

    fields: Sequence[pa.Field] = (
        # As fractions of width and height of the upright image: x_min, y_min, x_max, y_max.
        pa.field(GARMENT_BOX, pa.list_(pa.float32(), 4)),
        pa.field("garment_score", pa.float32()),
        pa.field("garment_vertical", pa.string()),
    )

    def __init__(self, embedder: ImageEmbedder) -> None:
        self._embedder, self.dim = embedder, embedder.dim

    def __call__(self, images: Sequence[bytes]) -> Answer:
        """Embeds the garments of images, most likely first in each image."""
        found = self._embedder.outputs(images, DETECT)
        places, slots = np.nonzero(found["found"])
        boxes, scores, names = (
            found[name][places, slots] for name in ("boxes", "scores", "vertical_name")
        )
        columns = (
            pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel(), pa.float32()), 4),
            pa.array(scores, pa.float32()),
            pa.array([name.decode() for name in names], pa.string()),
        )
        return Answer(places, found["embedding"][places, slots], found["valid"], columns)


class LocalModel(ServedModel):
    """Embeds encoded images with a SavedModel; thread-safe.

    Args:
      directory: directory of one version, such as `runs/mine/saved_model/1`.
      batch_size: images per batch, at least 1.
      limits: which images are accepted.

    Raises:
      UserError: if there is no SavedModel, or not one of this package.

    Examples:
      >>> from pathlib import Path
      >>> model = LocalModel("runs/mine/saved_model/1")
      >>> found = model.embed([Path("dress.webp").read_bytes(), b"not an image"])
      >>> found.embeddings.shape, found.valid
      ((2, 8), array([ True, False]))
    """

    def __init__(
        self,
        directory: str | Path,
        batch_size: int = 32,
        limits: ImageLimits = ImageLimits(),
    ) -> None:
        super().__init__(limits, batch_size, batch_bytes=2**30)
        directory = Path(directory)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; expected 1 or more")
        if not (directory / _SAVED_MODEL).is_file():
            raise UserError(f"{directory}: not a SavedModel ({_SAVED_MODEL} is missing)")
        self._embedder = _load_saved_model(str(directory))
        self.dim = self._embedder.dim
        self._verticals = read_verticals(directory)

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the model's verticals, in the order of `vertical_scores`."""
        return self._verticals

    @property
    def detects(self) -> bool:
        """Whether the model detects garments, i.e. it was exported with `--detector`."""
        return self._embedder.detects

    def _predict(self, images: list[bytes], signature: str) -> dict[str, np.ndarray]:
        return self._embedder.outputs(images, signature)


def find_model(location: str) -> str:
    """Returns the directory that contains a model's files.

    Args:
      location: a stage of a run, its `model` directory, a SavedModel, or a directory of its
        versions, of which the newest is used.

    Raises:
      UserError: if there is no model.
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
        f"--model={location}: no model found; expected a SavedModel ({_SAVED_MODEL}) or a stage of "
        f"a run (model/{_MODEL})"
    )


def model_fingerprint(location: str) -> str:
    """Returns the SHA-256 (hex) of the files of a model; see `find_model`."""
    total = hashlib.sha256()
    directory = find_model(location)
    for parent, _, names in sorted(tf.io.gfile.walk(directory)):
        for name in sorted(names):
            total.update(f"{parent[len(directory) :]}/{name}\0".encode())
            with tf.io.gfile.GFile(f"{parent}/{name}", "rb") as file:
                while block := file.read(_BYTES_AT_ONCE):
                    total.update(block)
    return total.hexdigest()


def load_image_embedder(location: str) -> ImageEmbedder:
    """Loads a model; see `find_model`.

    Raises:
      UserError: if there is none, it cannot be read, or it does not take encoded images.
    """
    directory = find_model(location)
    if tf.io.gfile.exists(f"{directory}/{_SAVED_MODEL}"):
        return _load_saved_model(directory)
    model, _ = load_embedding_model(Path(directory))
    module = ServingModule(model)
    serve = module.embed_bytes.get_concrete_function()
    return ImageEmbedder(module, serve, model.output_shape[-1])


def load_garment_embedder(location: str) -> GarmentEmbedder:
    """Loads a model that detects garments; see `find_model`.

    Raises:
      UserError: see `load_image_embedder`; or if it was exported without a detector.
    """
    embedder = load_image_embedder(location)
    if not embedder.detects:
        raise UserError(
            f"--detect with --model={location}: expected a SavedModel exported with a detector; "
            "train one with tools/train_detector.py and export it with tools/export_saved_model.py"
        )
    return GarmentEmbedder(embedder)


def _load_saved_model(directory: str) -> ImageEmbedder:
    try:
        module = tf.saved_model.load(directory)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{directory}: the SavedModel cannot be read: {one_line(error)}") from error
    serve = module.signatures.get(EMBED)
    takes = set(serve.structured_input_signature[1]) if serve else set()
    gives = serve.structured_outputs if serve else {}
    if takes != {"image_bytes"} or not {"embedding", "valid"} <= set(gives):
        raise UserError(
            f"{directory}: its signature {EMBED!r} does not map `image_bytes` to `embedding` and "
            "`valid`; export the model with tools/export_saved_model.py"
        )
    dim = int(gives["embedding"].shape[-1])
    return ImageEmbedder(module, serve, dim, module.signatures.get(DETECT))
