"""What is exported, and what a SavedModel says of itself in its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json
from apparel_embed.common.settings import setting

SAVED_MODEL = "saved_model"
"""Directory of the versions in a run."""

EMBED, DETECT = "serving_default", "detect_and_embed"
"""Signatures that take images as they are in files: for the whole, and for each garment."""

LARGEST_SERVED_PIXELS = 100_000_000
"""A transparent PNG of so many pixels takes about 1.6 GB to decode."""

MAX_PIXELS = 25_000_000
"""Of an image, unless an export says otherwise."""

VERTICALS_FILE = "verticals.txt"
ROUTING_FILE = "routing_confidence.txt"
ALIGNED_FILE = "aligned_to.txt"
THRESHOLDS_FILE = "absent_thresholds.json"
TFLITE_KINDS = ("float16", "int8")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How a model is exported.

    Attributes:
      warm_up: whether requests are stored that TensorFlow Serving replays when it loads the model;
        needs tensorflow-serving-api.

    Examples:
      >>> ExportConfig(max_pixels=1_000_000).warm_up
      True
    """

    max_pixels: int = setting(
        MAX_PIXELS,
        "images of more pixels are answered valid=false before they are decoded",
        1,
        LARGEST_SERVED_PIXELS,
        flag="serving_max_pixels",
        seldom=True,
    )
    warm_up: bool = setting(
        True, "store requests that TensorFlow Serving replays when it loads the model", seldom=True
    )


def saved_model_versions(base: Path) -> list[Path]:
    """Returns the versions of a SavedModel: directories in `base` named by numbers, newest last."""
    paths = base.iterdir() if base.is_dir() else ()
    return sorted((path for path in paths if path.name.isdecimal()), key=lambda one: int(one.name))


def read_verticals(directory: Path) -> tuple[str, ...]:
    """Returns the verticals that a SavedModel knows, in the order of its scores; () if unknown."""
    path = directory / "assets" / VERTICALS_FILE
    return tuple(path.read_text("utf-8").split("\n")[:-1]) if path.is_file() else ()


def read_aligned_to(directory: Path) -> tuple[str, ...]:
    """Returns the fingerprints of the SavedModels in whose space a SavedModel embeds, too."""
    path = directory / "assets" / ALIGNED_FILE
    return tuple(path.read_text("utf-8").split()) if path.is_file() else ()


def read_routing_confidence(directory: Path) -> float | None:
    """Returns the score of a vertical from which on a search is served in that one alone.

    None is for never: the SavedModel has no head, or it was not measured for it.

    Raises:
      UserError: if the file holds no number.
    """
    path = directory / "assets" / ROUTING_FILE
    try:
        return float(path.read_text("utf-8")) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path}: holds no number ({error}); export the model again") from error


def read_absent_thresholds(directory: Path, level: str) -> dict[str, float] | None:
    """Returns below what distance the nearest image is taken for the same item.

    Args:
      directory: of a SavedModel.
      level: share of queries whose item is absent that may be accepted, such as "0.05".

    Returns:
      Thresholds by vertical, under "ALL" that of a search in all; one that is not there accepts
      nothing. None if the SavedModel has none: it was not evaluated when it was exported.

    Raises:
      UserError: if the file does not hold them.
    """
    path = directory / "assets" / THRESHOLDS_FILE
    if not path.is_file():
        return None
    try:
        return {str(name): float(one) for name, one in read_json(path)[level].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: holds no thresholds for {level} ({error!r}); export the model again"
        ) from error
