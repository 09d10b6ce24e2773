"""TensorBoard's Embedding Projector: embeddings with their pictures, items, verticals and roles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.plugins import projector

from apparel_embed.common.text import one_line
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.report.embedding_map import sampled
from apparel_embed.report.ranks import square_thumbnail

MOST_PICTURES = 2500
"""Of more a sample is shown: t-SNE in a browser takes minutes, and a sprite a texture's memory."""

SPRITE_SIDE = 48
"""Of a picture in the sprite, in pixels. 2,500 make one of 2,400 x 2,400; browsers take 8,192."""

METADATA_FILE = "metadata.tsv"
SPRITE_FILE = "sprite.png"
COLUMNS = ("item", "vertical", "role", "record")
_READ_AT_ONCE = 256


def write_projector(
    directory: Path,
    dataset: PreparedDataset,
    records: np.ndarray,
    embeddings: Mapping[str, np.ndarray],
) -> list[str]:
    """Writes `projector_config.pbtxt` and what it names: `<model>.tsv`, metadata and sprite.

    TensorBoard finds them in a directory that has an event file, too.

    Args:
      directory: where to.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      embeddings: of each model, float [n, dim]; the first is shown first. Names are those of files;
        TensorBoard shows them numbered.

    Returns:
      Names of the files, none where there is nothing to show.
    """
    if not embeddings or not len(records):
        return []
    chosen = sampled(len(records), MOST_PICTURES)
    shown = records[chosen]
    (directory / METADATA_FILE).write_text(_metadata(dataset, shown), "utf-8")
    sprite(dataset, shown).save(directory / SPRITE_FILE)
    config = projector.ProjectorConfig()
    for number, (name, values) in enumerate(embeddings.items(), start=1):
        tensor = config.embeddings.add()
        # TensorBoard sorts by name and opens the first, whatever the order here.
        tensor.tensor_name, tensor.tensor_path = f"{number} {name}", f"{name}.tsv"
        tensor.metadata_path = METADATA_FILE
        tensor.sprite.image_path = SPRITE_FILE
        tensor.sprite.single_image_dim.extend([SPRITE_SIDE, SPRITE_SIDE])
        # Nine digits give every float32 back.
        np.savetxt(directory / tensor.tensor_path, values[chosen], "%.9g", delimiter="\t")
    projector.visualize_embeddings(str(directory), config)
    files = [one.tensor_path for one in config.embeddings]
    return [METADATA_FILE, SPRITE_FILE, *files]


def sprite(dataset: PreparedDataset, records: Sequence[int]) -> Image.Image:
    """Returns pictures side by side in a square, line by line, as the projector cuts them.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers, n at least 1.
    """
    columns = math.ceil(math.sqrt(len(records)))
    sheet = Image.new("RGB", (columns * SPRITE_SIDE, columns * SPRITE_SIDE), "white")
    for start in range(0, len(records), _READ_AT_ONCE):
        images = dataset.read_images(records[start : start + _READ_AT_ONCE])
        for number, image in enumerate(images, start=start):
            place = (number % columns * SPRITE_SIDE, number // columns * SPRITE_SIDE)
            sheet.paste(square_thumbnail(image, SPRITE_SIDE), place)
    return sheet


def _metadata(dataset: PreparedDataset, records: np.ndarray) -> str:
    """Returns a table of the pictures: a line each, below names of the columns."""
    rows = dataset.index.select(["item_id", "vertical", "role", "record"]).take(records)
    columns = [column.to_pylist() for column in rows.columns]
    lines = [COLUMNS, *zip(*columns)]
    # A tab or a line break in a name would be one of the table.
    return "".join("\t".join(one_line(v) for v in line) + "\n" for line in lines)
