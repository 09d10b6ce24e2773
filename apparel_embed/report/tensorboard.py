"""Writes an evaluation for TensorBoard: rank lists, and the Embedding Projector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from apparel_embed.common.files import remove_tree
from apparel_embed.common.text import one_line
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.roles import COMBINED, UNIFIED
from apparel_embed.report.embedding_map import sampled
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.ranks import rank_lists, searched_models, square_thumbnail, worst_queries

MOST_IMAGES = 2500
"""Larger splits are sampled: t-SNE takes minutes in browsers, and the sprite must fit a texture."""

SPRITE_SIDE = 48
"""Side of an image in the sprite, in pixels: 2,500 take 2,400 x 2,400; browsers allow 8,192."""

_METADATA_FILE = "metadata.tsv"
_SPRITE_FILE = "sprite.png"
_READ_AT_ONCE = 256


def write_summaries(inputs: ReportInputs, directory: Path) -> dict[str, Any]:
    """Writes the worst queries' rank lists as images, and embeddings for the projector.

    They come from the student and the specialists, or else from the combined model.

    Args:
      inputs: the inputs of the report.
      directory: the directory to write to; leftovers of an interrupted call are deleted.

    Returns:
      Names of the verticals with rank lists, and of the projector's files.
    """
    remove_tree(directory)
    models = searched_models(inputs)
    lists = rank_lists(inputs, models, worst_queries) if models else ()
    writer = tf.summary.create_file_writer(str(directory))
    with writer.as_default(step=0):
        for one in lists:
            image = tf.io.decode_png(one.png)[tf.newaxis]
            tf.summary.image(f"worst_queries/{one.vertical}", image)
    writer.close()
    wanted = [name for name in (UNIFIED, inputs.experts) if name in inputs.embeddings]
    known = {name: inputs.embeddings.get(name) for name in wanted or [COMBINED] if name}
    embeddings = {name: found for name, found in known.items() if found is not None}
    files = write_projector(directory, inputs.dataset, inputs.images.records, embeddings)
    return {"worst_queries": [one.vertical for one in lists], "projector": files}


def write_projector(
    directory: Path,
    dataset: PreparedDataset,
    records: np.ndarray,
    embeddings: Mapping[str, np.ndarray],
) -> list[str]:
    """Writes `projector_config.pbtxt` and its files: `<model>.tsv`, metadata and sprite.

    TensorBoard finds them only if the directory also contains an event file.

    Args:
      directory: the directory to write to.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      embeddings: embeddings of each model, float [n, dim]; the first is shown first. Names become
        file names, and TensorBoard shows them numbered.

    Returns:
      Names of the files; none if there is nothing to show.
    """
    if not embeddings or not len(records):
        return []
    chosen = sampled(len(records), MOST_IMAGES)
    shown = records[chosen]
    rows = dataset.index.select(["item_id", "vertical", "role", "record"]).take(shown)
    lines = [("item", "vertical", "role", "record")]
    lines += zip(*(column.to_pylist() for column in rows.columns))
    # A tab or a line break in a name would break the table.
    metadata = "".join("\t".join(map(one_line, line)) + "\n" for line in lines)
    (directory / _METADATA_FILE).write_text(metadata, "utf-8")
    _sprite(dataset, shown).save(directory / _SPRITE_FILE)
    config = projector.ProjectorConfig()
    for number, (name, values) in enumerate(embeddings.items(), start=1):
        tensor = config.embeddings.add()
        # TensorBoard sorts by name and opens the first, regardless of the order here.
        tensor.tensor_name, tensor.tensor_path = f"{number} {name}", f"{name}.tsv"
        tensor.metadata_path = _METADATA_FILE
        tensor.sprite.image_path = _SPRITE_FILE
        tensor.sprite.single_image_dim.extend([SPRITE_SIDE, SPRITE_SIDE])
        # Nine digits represent every float32 exactly.
        np.savetxt(directory / tensor.tensor_path, values[chosen], "%.9g", delimiter="\t")
    projector.visualize_embeddings(str(directory), config)
    return [_METADATA_FILE, _SPRITE_FILE, *(one.tensor_path for one in config.embeddings)]


def _sprite(dataset: PreparedDataset, records: Sequence[int]) -> Image.Image:
    """Returns images in a square grid, row by row, as the projector expects."""
    columns = math.ceil(math.sqrt(len(records)))
    sheet = Image.new("RGB", (columns * SPRITE_SIDE, columns * SPRITE_SIDE), "white")
    for start in range(0, len(records), _READ_AT_ONCE):
        images = dataset.read_images(records[start : start + _READ_AT_ONCE])
        for number, image in enumerate(images, start=start):
            place = (number % columns * SPRITE_SIDE, number // columns * SPRITE_SIDE)
            sheet.paste(square_thumbnail(image, SPRITE_SIDE), place)
    return sheet
