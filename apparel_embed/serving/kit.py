"""What a SavedModel needs to be served by TensorFlow Serving: configurations, manifests, how to."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from apparel_embed.common.errors import UserError
from apparel_embed.serving.client import MODEL_NAME
from apparel_embed.serving.decoding import DECODED_AT_ONCE
from apparel_embed.serving.warm_up import BATCH_SIZES

IMAGE = "tensorflow/serving:2.15.1"
CONFIGS = ("models.config", "batching.config", "monitoring.config")
FILES = (*CONFIGS, "docker-compose.yaml", "kubernetes.yaml", "README.md")

# A transparent PNG, the dearest kind, takes so many at its peak.
_BYTES_PER_PIXEL = 16
# TensorFlow Serving and two versions of a model.
_MEMORY_GIB = 2
_BATCHES_AT_ONCE = 4


def write_serving_kit(
    directory: Path, saved_model: Path, *, dim: int, max_pixels: int, has_head: bool
) -> None:
    """Writes the files that serve a SavedModel by TensorFlow Serving.

    Args:
      directory: where to; must not be there.
      saved_model: directory of a version; that above it is served.
      dim: length of an embedding.
      max_pixels: of a picture.
      has_head: whether the model tells verticals.

    Raises:
      UserError: if the directory exists.
    """
    if directory.exists():
        raise UserError(f"{directory}: exists; name another directory for the serving kit")
    environment = Environment(
        loader=PackageLoader("apparel_embed.serving", "templates/kit"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    largest_gib = max_pixels * _BYTES_PER_PIXEL / 2**30
    values = {
        "image": IMAGE,
        "model_name": MODEL_NAME,
        # Kubernetes allows no underscore in names.
        "name": MODEL_NAME.replace("_", "-"),
        "models": str(saved_model.resolve().parent),
        "version": saved_model.name,
        "batch_sizes": BATCH_SIZES,
        "memory_gib": _MEMORY_GIB + math.ceil(_BATCHES_AT_ONCE * DECODED_AT_ONCE * largest_gib),
        "batches_at_once": _BATCHES_AT_ONCE,
        "decoded_at_once": DECODED_AT_ONCE,
        "bytes_per_pixel": _BYTES_PER_PIXEL,
        "dim": dim,
        "max_pixels": max_pixels,
        "has_head": has_head,
    }
    configs = [(name, environment.get_template(name).render(values)) for name in CONFIGS]
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in FILES:
        text = environment.get_template(name).render(values, configs=configs)
        (partial / name).write_text(text, "utf-8")
    partial.rename(directory)
