"""Names and settings of an export, and readers of a SavedModel's assets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json
from apparel_embed.common.settings import setting

SAVED_MODEL = "saved_model"
"""Directory of the exported versions in a run."""

EMBED, DETECT = "serving_default", "detect_and_embed"
"""Signatures that take encoded images: for whole images, and for each garment."""

GARMENT_BOX = "garment_box"
"""Column of bulk embeddings of garments: the box in which a detector found it."""

LARGEST_SERVED_PIXELS = 100_000_000
"""Decoding a transparent PNG of this many pixels takes about 1.6 GB."""

MAX_PIXELS = 25_000_000
"""Default limit of the pixels of an image."""

VERTICALS_FILE = "verticals.txt"
ROUTING_FILE = "routing_confidence.txt"
ALIGNED_FILE = "aligned_to.txt"
THRESHOLDS_FILE = "absent_thresholds.json"
TFLITE_KINDS = ("float16", "int8")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How a model is exported.

    Attributes:
      warm_up: whether to store requests that TensorFlow Serving replays when it loads the model;
        needs tensorflow-serving-api.

    Examples:
      >>> ExportConfig(max_pixels=1_000_000).warm_up
      True
    """

    max_pixels: int = setting(
        MAX_PIXELS,
        "images with more pixels are not decoded, and answered with valid=false",
        1,
        LARGEST_SERVED_PIXELS,
        flag="serving_max_pixels",
        rare=True,
    )
    warm_up: bool = setting(
        True, "store requests that TensorFlow Serving replays when it loads the model", rare=True
    )


def saved_model_versions(base: Path) -> list[Path]:
    """Returns the versions of a SavedModel: numbered directories in `base`, newest last."""
    paths = base.iterdir() if base.is_dir() else ()
    return sorted((path for path in paths if path.name.isdecimal()), key=lambda one: int(one.name))


def read_verticals(directory: Path) -> tuple[str, ...]:
    """Returns the verticals of a SavedModel, in the order of its scores; () if unknown."""
    path = directory / "assets" / VERTICALS_FILE
    return tuple(path.read_text("utf-8").split("\n")[:-1]) if path.is_file() else ()


def read_aligned_to(directory: Path) -> tuple[str, ...]:
    """Returns the fingerprints of the SavedModels that a SavedModel is aligned to."""
    path = directory / "assets" / ALIGNED_FILE
    return tuple(path.read_text("utf-8").split()) if path.is_file() else ()


def read_routing_confidence(directory: Path) -> float | None:
    """Returns the score at or above which a search uses only the predicted vertical.

    None means never: the SavedModel has no head, or its confidence was not measured.

    Raises:
      UserError: if the file does not contain a number.
    """
    path = directory / "assets" / ROUTING_FILE
    try:
        return float(path.read_text("utf-8")) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path}: expected a number ({error}); export the model again") from error


def read_absent_thresholds(directory: Path, level: str) -> dict[str, float] | None:
    """Returns the distances below which the nearest image is considered the same item.

    Args:
      directory: directory of a SavedModel.
      level: share of queries with an absent item that may be accepted, such as "0.05".

    Returns:
      Thresholds by vertical, and under "ALL" for a search in all; without a threshold nothing is
      accepted. None if the SavedModel has none, since it was exported before its evaluation.

    Raises:
      UserError: if the file does not contain thresholds for the level.
    """
    path = directory / "assets" / THRESHOLDS_FILE
    if not path.is_file():
        return None
    try:
        return {str(name): float(one) for name, one in read_json(path)[level].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no thresholds for {level} ({error!r}); export the model again"
        ) from error
