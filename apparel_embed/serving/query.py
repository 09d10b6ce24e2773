"""Embedding from the command line: image files in, lines of JSON out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.data.images import image_size
from apparel_embed.serving.client import Client
from apparel_embed.serving.local import LocalModel


def read_images(paths: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """Returns the contents of files by path, and error messages for unreadable ones."""
    images, failures = {}, []
    for path in paths:
        try:
            images[path] = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            failures.append(f"{path}: cannot be read ({reason})")
    return images, failures


def answer_lines(images: Mapping[str, bytes], model: Client | LocalModel) -> list[str]:
    """Returns a JSON object per image: image, valid, vertical, vertical_score, embedding.

    The vertical is left out for invalid images, and if the model has no head.
    """
    found = model.embed(list(images.values()))
    lines = []
    for place, path in enumerate(images):
        answer: dict[str, Any] = {"image": path, "valid": bool(found.valid[place])}
        if found.vertical_scores is not None and answer["valid"]:
            best = int(found.vertical_scores[place].argmax())
            answer["vertical"] = model.verticals[best]
            answer["vertical_score"] = round(float(found.vertical_scores[place][best]), 6)
        answer["embedding"] = _numbers(found.embeddings[place])
        lines.append(json.dumps(answer, ensure_ascii=False))
    return lines


def garment_lines(images: Mapping[str, bytes], model: Client | LocalModel) -> list[str]:
    """Returns a JSON object per image: image, valid, and garments, most likely first.

    A garment has box (x_min, y_min, x_max, y_max in pixels of the upright image), vertical, score
    and embedding.
    """
    lines = []
    for (path, data), found in zip(images.items(), model.detect(list(images.values()))):
        sides = image_size(data) * 2 if found.valid else ()
        garments = [
            {
                "box": [round(float(part) * side, 1) for part, side in zip(box, sides)],
                "vertical": vertical,
                "score": round(float(score), 6),
                "embedding": _numbers(embedding),
            }
            for box, score, vertical, embedding in zip(*found[:4])
        ]
        answer = {"image": path, "valid": found.valid, "garments": garments}
        lines.append(json.dumps(answer, ensure_ascii=False))
    return lines


def _numbers(embedding: np.ndarray) -> list[float]:
    return [round(float(value), 7) for value in embedding]
