"""Finding one's way in a published dataset on disk: lists, pictures, names of verticals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError


def find_file(root: Path, names: Sequence[str], needed_for: str) -> str:
    """Returns the first of `names`, relative to `root`, that is a file.

    Args:
      root: directory of the dataset.
      names: where the file may be, the published place first.
      needed_for: the dataset, as the error calls it.

    Raises:
      UserError: none of them is there; the message tells of a zip that may hold it.
    """
    found = find_optional_file(root, names)
    if found is not None:
        return found
    raise UserError(
        f"{root}: no {names[0]}, which {needed_for} needs; is this the directory that holds it?"
        + zip_hint(root, [Path(names[0]).parts[0], Path(names[0]).stem])
    )


def find_optional_file(root: Path, names: Sequence[str]) -> str | None:
    """Returns the first of `names`, relative to `root`, that is a file; None if none is."""
    return next((name for name in names if (root / name).is_file()), None)


def zip_hint(root: Path, stems: Sequence[str]) -> str:
    """Returns a sentence on zips of these names that wait to be unpacked; "" if there are none."""
    for folder in (root, root / "Img"):
        for stem in stems:
            path = folder / f"{stem}.zip"
            if path.is_file():
                return (
                    f" {path} is not unpacked: unzip it in {folder}, with the password that the "
                    "dataset's authors send those who ask them for access"
                )
    return ""


def find_pictures(root: Path, folder: str, inside: Sequence[str]) -> str:
    """Returns where the pictures lie, relative to `root`.

    Archives are unpacked as it comes: `folder` itself, below `Img`, or twice over, as when a zip
    that holds `img` is unpacked in a directory `img`.

    Args:
      root: directory of the dataset.
      folder: directory of the pictures, e.g. `img`.
      inside: the directories that the lists name in it; one of them has to be there.

    Raises:
      UserError: they are nowhere; the message says what to unpack.
    """
    places = (folder, f"Img/{folder}", f"{folder}/{folder}", f"Img/{folder}/{folder}")
    for place in places:
        if any((root / place / name).is_dir() for name in inside):
            return place
    raise UserError(
        f"{root}: no pictures: there is neither {folder}/{inside[0]} nor Img/{folder}/{inside[0]}."
        + zip_hint(root, [folder])
    )


def read_annotations(path: Path) -> Any:
    """Returns the value in a JSON file of annotations.

    Raises:
      UserError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON, or cut short: {error}") from error


def is_finite_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a number that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def to_vertical(texts: pa.ChunkedArray) -> pa.Array:
    """Returns names of verticals: lower case, and `_` between words.

    Other signs would clash with the lists of groups that flags hold (`dress+skirt,bag`).
    """
    coded = texts.combine_chunks().dictionary_encode()
    words = pc.replace_substring_regex(pc.utf8_lower(coded.dictionary), r"[^\pL\pN]+", "_")
    return pc.utf8_trim(words, "_").take(coded.indices)
