"""Files written next to a model: its card, warm-up requests, and the serving kit."""

from __future__ import annotations

import io
import itertools
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.serving.client import MODEL_NAME
from apparel_embed.serving.decoding import DECODED_AT_ONCE

IMAGE = "tensorflow/serving:2.15.1"
CONFIGS = ("models.config", "batching.config", "monitoring.config")
SEARCH_FILES = (
    "search.Dockerfile",
    "search-compose.yaml",
    "search-kubernetes.yaml",
    "search.service",
)
FILES = (*CONFIGS, "docker-compose.yaml", "kubernetes.yaml", *SEARCH_FILES, "README.md")
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Images in a request; a server with request batching uses only these batch sizes."""

# Peak memory per pixel of a transparent PNG, the most expensive kind of image.
_BYTES_PER_PIXEL = 16
# TensorFlow Serving and two versions of a model.
_MEMORY_GIB = 2
_BATCHES_AT_ONCE = 4
# Of the search service: TensorFlow, a model and the index take 1; uploads or a larger index more.
_SEARCH_MEMORY_GIB = 4
_SEARCH_TMP_GIB = 2


def render_model_card(**values: Any) -> str:
    """Returns the model card as Markdown: the model, its data and its metrics.

    Args:
      **values: the variables of `templates/model_card.md`: `name` of the run, `stage` that trained
        the model and its `fingerprint`, `versions` of packages, the `model`'s configuration, number
        of `parameters`, `data_fingerprint`, `counts` of images by vertical and split, `groups` of
        verticals by teacher, `max_pixels`; from the evaluation, if any, rows of `metrics` of a
        `split`, the model's name there (`evaluated_as`), `routing`, and when `searches` follow the
        vertical head; the `detector`'s configuration, or None; and the content of `absent.json`,
        or None.
    """
    return _templates().get_template("model_card.md").render(values)


def write_warm_up_requests(saved_model: Path, image_size: int, signatures: Sequence[str]) -> None:
    """Writes requests that TensorFlow Serving replays when it loads a model.

    Args:
      saved_model: directory of the version.
      image_size: side of the model's input, in pixels.
      signatures: signatures to call, each once per batch size.

    Raises:
      UserError: if tensorflow-serving-api, which defines the requests, is not installed.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise UserError(
            "warm-up requests need the package tensorflow-serving-api: pip install "
            "'apparel_embed[serving]', or export with --nowarm_up"
        ) from error

    images = [_gradient(kind, 2 * image_size) for kind in ("JPEG", "PNG")]
    directory = saved_model / "assets.extra"
    directory.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / "tf_serving_warmup_requests")) as writer:
        for signature, size in itertools.product(signatures, BATCH_SIZES):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = signature
            batch = [images[place % len(images)] for place in range(size)]
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(batch, tf.string))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString(deterministic=True))


def write_serving_kit(
    directory: Path,
    saved_model: Path,
    *,
    dim: int,
    max_pixels: int,
    has_head: bool,
    has_detector: bool = False,
) -> None:
    """Writes the files to deploy a SavedModel with TensorFlow Serving, and the search service.

    Args:
      directory: directory to create; must not exist.
      saved_model: directory of a version; its parent directory is served.
      dim: length of an embedding.
      max_pixels: limit of the pixels of an image.
      has_head: whether the model predicts verticals.
      has_detector: whether the model detects garments.

    Raises:
      UserError: if the directory exists.
    """
    if directory.exists():
        raise UserError(f"{directory}: exists; name another directory for the serving kit")
    models = os.path.relpath(saved_model.resolve().parent, directory.resolve())
    largest_gib = max_pixels * _BYTES_PER_PIXEL / 2**30
    values = {
        "image": IMAGE,
        "model_name": MODEL_NAME,
        # Kubernetes does not allow underscores in names.
        "name": MODEL_NAME.replace("_", "-"),
        # Relative to the kit, so that both can be moved together. Without a dot, Docker Compose
        # would take it for the name of a volume.
        "models": models if models.startswith(".") else f"./{models}",
        "version": saved_model.name,
        "batch_sizes": BATCH_SIZES,
        "memory_gib": _MEMORY_GIB + math.ceil(_BATCHES_AT_ONCE * DECODED_AT_ONCE * largest_gib),
        "batches_at_once": _BATCHES_AT_ONCE,
        "decoded_at_once": DECODED_AT_ONCE,
        "bytes_per_pixel": _BYTES_PER_PIXEL,
        "dim": dim,
        "max_pixels": max_pixels,
        "has_head": has_head,
        "has_detector": has_detector,
        "search_image": f"{MODEL_NAME.replace('_', '-')}-search:{__version__}",
        "search_memory_gib": _SEARCH_MEMORY_GIB,
        "search_tmp_gib": _SEARCH_TMP_GIB,
    }
    templates = _templates()
    configs = [(name, templates.get_template(f"kit/{name}").render(values)) for name in CONFIGS]
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in FILES:
        text = templates.get_template(f"kit/{name}").render(values, configs=configs)
        (partial / name).write_text(text, "utf-8")
    partial.rename(directory)


def _templates() -> Environment:
    """Returns the templates, with filters to format a share, alone or with its interval."""
    environment = Environment(
        loader=PackageLoader("apparel_embed.serving"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.3f}"
    environment.filters["interval"] = lambda row, field: (
        "-"
        if row[field] is None
        else f"{row[field]:.3f} [{row[f'{field}_low']:.3f}, {row[f'{field}_high']:.3f}]"
    )
    return environment


def _gradient(kind: str, side: int) -> bytes:
    """Returns an image of a colour gradient, encoded in one of Pillow's formats."""
    file = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((side, side))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(file, kind)
    return file.getvalue()
