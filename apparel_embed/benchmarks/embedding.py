"""Benchmark of bulk embedding, relative to the model alone on one constant batch."""

from __future__ import annotations

import csv
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.benchmarks.harness import in_turns
from apparel_embed.data.images import ImageSettings
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.inference.bulk import bulk_embed, run_here
from apparel_embed.inference.bulk_shard import BulkConfig
from apparel_embed.inference.bulk_sources import MANIFEST, PREPARED, SourceConfig
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model
from apparel_embed.serving.exported import LARGEST_SERVED_PIXELS
from apparel_embed.serving.local import ImageEmbedder
from apparel_embed.serving.saved_model import ServingModule

MODEL = ModelConfig(backbone="efficientnet_v2_b0", image_size=224)
_BATCH = 32
_IMAGES = 32
# Size of a typical shop photograph, in pixels; 192 x 256 once prepared.
_WIDTH, _HEIGHT = 600, 800
_DIFFERENT = 32
_ROUNDS = 3


def measure_embedding(scale: int = 1, seed: int = 0) -> dict[str, float]:
    """Embeds images in bulk and, in turns, one constant batch the same number of times.

    Args:
      scale: number of images in units of 32, the batch size; 1 or more.
      seed: seed of images and weights.

    Returns:
      `embed_vs_model`, the throughput of bulk embedding of a prepared dataset over that of the
      model alone, and `embed_manifest_vs_model`, the same for a manifest of photographs, which are
      also decoded, downscaled and encoded; `embed_cpu_vs_model` and `embed_manifest_cpu_vs_model`,
      the same in CPU time, which other programs disturb less; and `embed_seconds`,
      `embed_manifest_seconds` and `model_seconds` per image.
    """
    tf.keras.utils.set_random_seed(seed)
    model = build_embedding_model(MODEL)
    module = ServingModule(model, LARGEST_SERVED_PIXELS)
    dim = model.output_shape[-1]
    embed = ImageEmbedder(module, module.embed_bytes.get_concrete_function(), dim)
    alone = Embedder(model)
    random = np.random.default_rng(seed)
    shape = (_BATCH, MODEL.image_size, MODEL.image_size, 3)
    batch = tf.constant(random.integers(0, 256, shape, np.uint8))
    count = _IMAGES * scale
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        manifest = write_photographs(directory, count, random)
        prepared = prepare(PrepareConfig(manifest, directory / "prepared"), processes=1)
        sides: dict[str, Callable[[], object]] = {
            "model": lambda: alone([batch] * (count // _BATCH)),
            "embed": lambda: _embed(directory, PREPARED, prepared.directory, embed),
            "embed_manifest": lambda: _embed(directory, MANIFEST, manifest, embed),
        }
        times = in_turns(sides, _ROUNDS, "embedding")
    median = {
        side: [statistics.median(values) / count for values in zip(*measured)]
        for side, measured in times.items()
    }
    found: dict[str, float] = {}
    for side in ("embed", "embed_manifest"):
        found[f"{side}_vs_model"] = median["model"][0] / median[side][0]
        found[f"{side}_cpu_vs_model"] = median["model"][1] / median[side][1]
    return {**found, **{f"{side}_seconds": value[0] for side, value in median.items()}}


def _embed(directory: Path, kind: str, location: Path, embed: ImageEmbedder) -> None:
    source = SourceConfig(kind, str(location), ImageSettings(), shard_images=16384)
    output = directory / "embeddings"
    config = BulkConfig(source, "benchmark", str(output), _BATCH)
    bulk_embed(config, lambda *todo: run_here(*todo, load=lambda: embed))
    shutil.rmtree(output)


def write_photographs(directory: Path, count: int, random: np.random.Generator) -> Path:
    """Writes some photographs, and a manifest of `count` rows that repeats them."""
    for number in range(_DIFFERENT):
        coarse = random.integers(0, 256, (_HEIGHT // 20, _WIDTH // 20, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (_HEIGHT, _WIDTH, 3))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.jpg", quality=85)
    manifest = directory / "manifest.csv"
    with open(manifest, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "item_id", "vertical"])
        writer.writerows([f"{row % _DIFFERENT}.jpg", row, "dress"] for row in range(count))
    return manifest
