"""The files of published datasets: lists, boxes and JSON, and where to find them.

A list of DeepFashion and its like begins with the number of its rows and the names of its columns;
cells are separated by white space, and padded with it. Paths may hold spaces all the same: a cell
of images ends at the first word that ends like an image's name, every other cell is one word.
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
      cells: texts by the names of their columns; `line[name]` for short.
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
        """Returns the directories and the file of a path relative to the dataset.

        Args:
          column: where the path is.
          like: a path as it should be: as deep, and in `img/` if that begins so.

        Raises:
          UserError: it has another depth, is absolute or leads upwards.
        """
        start = "img/" if like.startswith("img/") else ""
        parts = self[column].split("/")
        is_strange = "\\" in self[column] or not {"", ".", ".."}.isdisjoint(parts)
        if is_strange or not self[column].startswith(start) or len(parts) != like.count("/") + 1:
            raise self.wrong(column, f"a path relative to the dataset like {like} is needed")
        return parts


def read_list(
    path: Path,
    columns: str,
    images: Sequence[str],
    *,
    counted: bool = True,
    may_count_images: bool = False,
) -> list[Line]:
    """Reads a list file and checks that it is whole.

    Args:
      path: UTF-8 text, with or without a BOM, with any line ends; blank lines do not matter.
      columns: names of the columns in their order, as the header has them.
      images: those that hold paths of images, which may have spaces in them.
      counted: whether the first line is the number of rows.
      may_count_images: whether it may also be the number of different images.

    Raises:
      UserError: the file cannot be read, its header is another, the number in its first line is
        not that of its rows, or a row has too few or too many columns.
    """
    lines = [line.strip() for line in _read_text(path).split("\n")]
    header = " ".join(lines[counted].split()) if len(lines) > counted else ""
    if header != columns:
        raise UserError(
            f"{path}: row {1 + counted}: columns {header or '(none)'}; expected: {columns}"
        )
    if counted and not re.fullmatch("[0-9]{1,18}", lines[0]):
        raise UserError(f"{path}: row 1: {_cut(lines[0])!r}; the number of rows is expected")
    body = [(row, line) for row, line in enumerate(lines, 1) if line and row > 1 + counted]
    if not body:
        raise UserError(f"{path}: no row follows the names of the columns; the file is cut short")
    names = columns.split()
    cells = [f"(?P<{name}>{_IMAGE if name in images else _WORD})" for name in names]
    pattern = re.compile(r"\s+".join(cells))
    found = [pattern.fullmatch(line) for _, line in body]
    known = {len(body)}
    if may_count_images:
        known.add(len({match[name] for match in found if match for name in images}))
    if counted and int(lines[0]) not in known:
        raise UserError(
            f"{path}: row 1: says {int(lines[0])} rows, but {len(body)} follow; "
            "the file is cut short or was changed"
        )
    whole = []
    for (row, line), match in zip(body, found):
        if not match:
            raise UserError(
                f"{path}: row {row}: {_cut(line)!r}: {len(line.split())} words, but {len(names)} "
                f"columns are needed: {columns}, where {' and '.join(images)} must end in .jpg or "
                "the like"
            )
        whole.append(Line(path, row, match.groupdict()))
    return whole


def read_boxes(
    root: Path, published: str, columns: str, images: Collection[str]
) -> tuple[dict[str, Box | None], list[str]]:
    """Reads the boxes of images, whose corners are upper left and lower right.

    Args:
      root: directory of the dataset.
      published: where the list should be, see `find_file`.
      columns: of the list; `image_name`, and after other columns `x_1`, `y_1`, `x_2`, `y_2`.
      images: those to report to the user that have none.

    Returns:
      Boxes by images, None where one has no area, nothing if there is no list; and notes.

    Raises:
      UserError: an image is listed twice, or something is no number.
    """
    found = find_file(root, published)
    if not found:
        return {}, [f"{root}: no {published}: images are used whole, without boxes"]
    boxes: dict[str, Box | None] = {}
    rows: dict[str, int] = {}
    for line in read_list(root / found, f"{columns} {' '.join(_EDGES)}", ["image_name"]):
        image = line["image_name"]
        if image in rows:
            raise line.wrong("image_name", f"it was in row {rows[image]} already")
        for column in _EDGES:
            if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", line[column]):
                raise line.wrong(column, "a number of pixels is needed")
        x_min, y_min, x_max, y_max = (float(line[column]) for column in _EDGES)
        boxes[image] = (x_min, y_min, x_max, y_max) if x_max > x_min and y_max > y_min else None
        rows[image] = line.row
    counts = {
        "images that it has no box for": sum(image not in boxes for image in images),
        "boxes without area, left out": sum(box is None for box in boxes.values()),
    }
    return boxes, [f"{root / found}: {what}: {count}" for what, count in counts.items() if count]


def find_file(root: Path, published: str, needed_for: str = "") -> str:
    """Returns where a file is, relative to `root`; "" if it is nowhere and nothing needs it.

    Args:
      root: directory of the dataset.
      published: `Eval/list.txt`; `eval/list.txt` and `list.txt` will do.
      needed_for: the dataset, if it cannot do without.

    Raises:
      UserError: it is needed and nowhere; the message names a zip that may hold it.
    """
    folder, _, name = published.rpartition("/")
    for place in (published, Path(folder.lower(), name).as_posix(), name):
        if (root / place).is_file():
            return place
    if not needed_for:
        return ""
    hint = zip_hint(root, [Path(published).parts[0], Path(published).stem])
    raise UserError(
        f"{root}: no {published}, which {needed_for} needs; is this the directory that holds it?"
        + hint
    )


def find_images(root: Path, folder: str, inside: Sequence[str]) -> str:
    """Returns where the images lie, relative to `root`.

    Archives are unpacked as it comes: `folder` itself, below `Img`, or twice over, as when a zip
    that holds `img` is unpacked in a directory `img`.

    Args:
      root: directory of the dataset.
      folder: directory of the images, e.g. `img`.
      inside: the directories that the lists name in it; one of them has to be there.

    Raises:
      UserError: they are nowhere; the message says what to unpack.
    """
    for place in (folder, f"Img/{folder}", f"{folder}/{folder}", f"Img/{folder}/{folder}"):
        if any((root / place / name).is_dir() for name in inside):
            return place
    raise UserError(
        f"{root}: no images: there is neither {folder}/{inside[0]} nor Img/{folder}/{inside[0]}."
        + zip_hint(root, [folder])
    )


def zip_hint(root: Path, stems: Sequence[str]) -> str:
    """Returns a sentence on zips of these names that wait to be unpacked; "" if there are none."""
    for path in (folder / f"{stem}.zip" for folder in (root, root / "Img") for stem in stems):
        if path.is_file():
            return (
                f" {path} is not unpacked: unzip it in {path.parent}, with the password that the "
                "dataset's authors send those who ask them for access"
            )
    return ""


def read_json_file(path: Path) -> Any:
    """Returns the value in a JSON file of annotations; raises a UserError if it is none."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON, or cut short: {error}") from error


def need_field(
    place: object, entry: Any, name: str, is_right: Callable[[Any], bool], needed: str
) -> Any:
    """Returns a field of an object in a JSON file.

    Args:
      place: the file and where the object stands in it, for the error.
      entry: what should be the object.
      name: of the field.
      is_right: whether its value is as documented; gets None where it is missing.
      needed: what is expected of it.

    Raises:
      UserError: the entry is no object, or the value is wrong.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{place}: {_cut(repr(entry))}; an object with {name} is needed")
    value = entry.get(name)
    if not is_right(value):
        shown = "missing" if value is None else _cut(repr(value))
        raise UserError(f"{place}: {name}: {shown}; {needed}")
    return value


def is_whole_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Returns whether a value of a JSON file is a number that a float can hold."""
    try:
        return (is_whole_number(value) or isinstance(value, float)) and math.isfinite(value)
    except OverflowError:
        return False


def to_vertical(text: str) -> str:
    """Returns the name of a vertical: lower case, and `_` between words.

    Other signs would clash with the lists of groups that flags hold (`dress+skirt,bag`).
    """
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_")


def _read_text(path: Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: row {undecodable_row(path)}: is not UTF-8 text") from error
    if not text:
        raise UserError(f"{path}: is empty; it was not copied or unpacked whole")
    return text


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
