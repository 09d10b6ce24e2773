"""Writes what TensorBoard shows of an evaluation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.common.files import remove_tree
from apparel_embed.report.inputs import COMBINED, UNIFIED, ReportInputs
from apparel_embed.report.projector import write_projector
from apparel_embed.report.ranks import rank_lists, worst_queries


def write_summaries(inputs: ReportInputs, directory: Path) -> dict[str, Any]:
    """Writes the worst queries' rank lists as images, and embeddings for the projector.

    These are the student's and the specialists', or else those of the combined model.

    Args:
      inputs: what was evaluated.
      directory: where to; what an interrupted call has left there goes.

    Returns:
      Names of the verticals with rank lists, and of the projector's files.
    """
    remove_tree(directory)
    writer = tf.summary.create_file_writer(str(directory))
    with writer.as_default(step=0):
        lists = rank_lists(inputs, worst_queries)
        for one in lists:
            pixels = _pixels(one.png)
            tf.summary.image(f"worst_queries/{one.vertical}", pixels[np.newaxis])
    writer.close()
    wanted = [name for name in (UNIFIED, inputs.experts) if name and name in inputs.embeddings]
    shown = wanted or [COMBINED]
    embeddings = {name: inputs.embeddings[name] for name in shown if name in inputs.embeddings}
    files = write_projector(directory, inputs.dataset, inputs.pictures.records, embeddings)
    return {"worst_queries": [one.vertical for one in lists], "projector": files}


def _pixels(png: bytes) -> np.ndarray:
    """Returns a picture as uint8 [height, width, 3]."""
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))
