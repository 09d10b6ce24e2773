"""Finds and reads the files of published datasets: lists, boxes and JSON.

Lists in the style of DeepFashion begin with their number of rows and their column names. Cells are
separated and padded with white space, yet paths may contain spaces: an image cell ends at the first
word with an image extension; every other cell is one word.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.rows import Box, wrong_value
from apparel_embed.data.manifest import Place
from apparel_embed.data.text_tables import undecodable_row

_IMAGE = r"\S.*?\.(?i:jpe?g|png|gif|bmp|webp)"
_WORD = r"\S+"
_EDGES = ("x_1", "y_1", "x_2", "y_2")


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a list file.

    Attributes:
      path: the file.
      row: the line in it, counted from 1.
      cells: texts by column name; `line[name]` for short.
    """

    path: Path
    row: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def wrong(self, column: str, expected: str) -> UserError:
        """Returns the error for a cell."""
        return wrong_value(Place(str(self.path), self.row), column, self[column], expected)

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        """Returns a cell that is one of `allowed`; raises a UserError if it is not."""
        if self[column] not in allowed:
            raise self.wrong(column, f"expected one of {', '.join(allowed)}")
        return self[column]

    def path_parts(self, column: str, like: str) -> list[str]:
        """Returns the directories and the file name of a path relative to the dataset.

        Args:
          column: the column with the path.
          like: an example; the path must have its depth, and begin with `img/` if it does.

        Raises:
          UserError: the path has another depth or start, is absolute or contains `..`.
        """
        start = "img/" if like.startswith("img/") else ""
        parts = self[column].split("/")
        is_strange = "\\" in self[column] or not {"", ".", ".."}.isdisjoint(parts)
        if is_strange or not self[column].startswith(start) or len(parts) != like.count("/") + 1:
            raise self.wrong(column, f"expected a path relative to the dataset, such as {like}")
        return parts


def read_list(
    path: Path,
    columns: str,
    images: Sequence[str],
    *,
    counted: bool = True,
    may_count_images: bool = False,
) -> list[Line]:
    """Reads a list file and checks that it is complete.

    Args:
      path: UTF-8 text, with or without a BOM, with any line endings; blank lines are ignored.
      columns: the expected header, column names in order.
      images: the columns with image paths, which may contain spaces.
      counted: whether the first line is the number of rows.
      may_count_images: whether it may also be the number of distinct images.

    Raises:
      UserError: the file cannot be read, its header differs, its first line does not match the
        number of rows, or a row has too few or too many columns.
    """
    lines = [line.strip() for line in _read_text(path).split("\n")]
    header = " ".join(lines[counted].split()) if len(lines) > counted else ""
    if header != columns:
        raise UserError(
            f"{path}: row {1 + counted}: columns {header or '(none)'}; expected: {columns}"
        )
    if counted and not re.fullmatch("[0-9]{1,18}", lines[0]):
        raise UserError(f"{path}: row 1: {_cut(lines[0])!r}; expected the number of rows")
    body = [(row, line) for row, line in enumerate(lines, 1) if line and row > 1 + counted]
    if not body:
        raise UserError(f"{path}: no rows after the column names; the file is truncated")
    names = columns.split()
    cells = [f"(?P<{name}>{_IMAGE if name in images else _WORD})" for name in names]
    pattern = re.compile(r"\s+".join(cells))
    found = [pattern.fullmatch(line) for _, line in body]
    known = {len(body)}
    if may_count_images:
        known.add(len({match[name] for match in found if match for name in images}))
    if counted and int(lines[0]) not in known:
        raise UserError(
            f"{path}: row 1: expected {int(lines[0])} rows, got {len(body)}; "
            "the file is truncated or was edited"
        )
    whole = []
    for (row, line), match in zip(body, found):
        if not match:
            raise UserError(
                f"{path}: row {row}: {_cut(line)!r}: expected {len(names)} columns ({columns}), "
                f"{' and '.join(images)} ending in .jpg or similar; got {len(line.split())} words"
            )
        whole.append(Line(path, row, match.groupdict()))
    return whole


def read_boxes(
    root: Path, published: str, columns: str, images: Collection[str]
) -> tuple[dict[str, Box | None], list[str]]:
    """Reads the boxes of images: upper left and lower right corners.

    Args:
      root: the dataset's directory.
      published: the list's published path, see `find_file`.
      columns: the list's columns before `x_1`, `y_1`, `x_2`, `y_2`, among them `image_name`.
      images: the images that should have a box; a note counts those without.

    Returns:
      Boxes by image, None for a box without area, empty if there is no list; and notes.

    Raises:
      UserError: an image is listed twice, or a coordinate is not a number.
    """
    found = find_file(root, published)
    if not found:
        return {}, [f"{root}: no {published}: whole images are used, without boxes"]
    boxes: dict[str, Box | None] = {}
    rows: dict[str, int] = {}
    for line in read_list(root / found, f"{columns} {' '.join(_EDGES)}", ["image_name"]):
        image = line["image_name"]
        if image in rows:
            raise line.wrong("image_name", f"already listed in row {rows[image]}")
        for column in _EDGES:
            if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", line[column]):
                raise line.wrong(column, "expected a number of pixels")
        x_min, y_min, x_max, y_max = (float(line[column]) for column in _EDGES)
        boxes[image] = (x_min, y_min, x_max, y_max) if x_max > x_min and y_max > y_min else None
        rows[image] = line.row
    counts = {
        "images without a box": sum(image not in boxes for image in images),
        "boxes without area, left out": sum(box is None for box in boxes.values()),
    }
    return boxes, [f"{root / found}: {what}: {count}" for what, count in counts.items() if count]


def find_file(root: Path, published: str, needed_for: str = "") -> str:
    """Returns the path of a file relative to `root`; "" if it is missing and not required.

    Args:
      root: the dataset's directory.
      published: the published path, `Eval/list.txt`; `eval/list.txt` and `list.txt` work too.
      needed_for: the dataset that requires the file; "" if it is optional.

    Raises:
      UserError: a required file is missing; the error names a zip file that may contain it.
    """
    folder, _, name = published.rpartition("/")
    for place in (published, Path(folder.lower(), name).as_posix(), name):
        if (root / place).is_file():
            return place
    if not needed_for:
        return ""
    hint = zip_hint(root, [Path(published).parts[0], Path(published).stem])
    raise UserError(
        f"{root}: no {published}, which {needed_for} requires; is this the right directory?{hint}"
    )


def find_images(root: Path, folder: str, inside: Sequence[str]) -> str:
    """Returns the directory of the images, relative to `root`.

    It is `folder`, below `Img` or not, or nested twice, as when a zip file that contains `img` is
    unpacked in a directory `img`.

    Args:
      root: the dataset's directory.
      folder: name of the image directory, e.g. `img`.
      inside: the subdirectories that the lists name; at least one must exist.

    Raises:
      UserError: the directory is not found; the error says what to unpack.
    """
    for place in (folder, f"Img/{folder}", f"{folder}/{folder}", f"Img/{folder}/{folder}"):
        if any((root / place / name).is_dir() for name in inside):
            return place
    raise UserError(
        f"{root}: no images: found neither {folder}/{inside[0]} nor Img/{folder}/{inside[0]}."
        + zip_hint(root, [folder])
    )


def zip_hint(root: Path, stems: Sequence[str]) -> str:
    """Returns a sentence on how to unpack a zip file of one of these names; "" if none exists."""
    for path in (folder / f"{stem}.zip" for folder in (root, root / "Img") for stem in stems):
        if path.is_file():
            return (
                f" {path} is not unpacked: unzip it in {path.parent}, with the password that the "
                "dataset's authors send on request"
            )
    return ""


def read_json_file(path: Path) -> Any:
    """Returns the value in a JSON file; raises a UserError if it cannot be read or parsed."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: invalid or truncated JSON: {error}") from error


def need_field(
    place: object, entry: Any, name: str, is_valid: Callable[[Any], bool], expected: str
) -> Any:
    """Returns a field of an object in a JSON file.

    Args:
      place: the file and the object's place in it, for the error.
      entry: the value expected to be the object.
      name: the field's name.
      is_valid: returns whether the field's value is valid; gets None if the field is missing.
      expected: describes a valid value, for the error.

    Raises:
      UserError: the entry is not an object, or the field's value is invalid.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{place}: {_cut(repr(entry))}; expected an object with {name}")
    value = entry.get(name)
    if not is_valid(value):
        shown = "missing" if value is None else _cut(repr(value))
        raise UserError(f"{place}: {name}: {shown}; expected {expected}")
    return value


def is_whole_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a number that is finite as a float."""
    try:
        return (is_whole_number(value) or isinstance(value, float)) and math.isfinite(value)
    except OverflowError:
        return False


def to_vertical(text: str) -> str:
    """Returns the name of a vertical: lower case, with `_` between words.

    Other characters would clash with the separators of groups in flags (`dress+skirt,bag`).
    """
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_")


def _read_text(path: Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: row {undecodable_row(path)}: not UTF-8 text") from error
    if not text:
        raise UserError(f"{path}: the file is empty; copy or unpack it again")
    return text


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
