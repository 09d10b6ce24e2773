"""Checks of a dataset's rows in addition to those of every manifest; errors name helpful flags."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import first_alike
from apparel_embed.data.importers.image_files import image_sizes, is_missing, similar_file
from apparel_embed.data.importers.layout import ERROR
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.manifest import (
    BOX_COLUMNS,
    REQUIRED_COLUMNS,
    RESERVED_COLUMN,
    ROLES,
    SPLITS,
)

# Pixels: annotators count from 0 or from 1, and round.
_BOX_TOLERANCE = 1.0
# The number of unknown roles or splits that an error lists.
_MOST_VALUES = 10
# Common separators between several images in a cell.
_SEPARATORS = (";", "|", ",")


def check_columns(rows: Rows) -> None:
    """Raises a UserError if a column is missing or has a reserved name."""
    (first,) = rows.places(rows.table, [0])
    # In a layout without tables, no single file is missing the column: name the root.
    source = rows.root if first.row is None else first.file
    for name in REQUIRED_COLUMNS:
        if name not in rows.names:
            hint = " or --vertical=NAME" if name == "vertical" else ""
            raise UserError(
                f"{source}: no column {name!r}; found: {', '.join(rows.names)}; define it with "
                f"--columns={name}:COLUMN, a group (?P<{name}>...) of --pattern{hint}"
            )
    if RESERVED_COLUMN in rows.names:
        raise UserError(
            f"{source}: column {RESERVED_COLUMN!r} has a reserved name; rename it with "
            f"--columns=NAME:{RESERVED_COLUMN} or omit it with --columns={RESERVED_COLUMN}:"
        )
    missing = [name for name in BOX_COLUMNS if name not in rows.names]
    if 0 < len(missing) < len(BOX_COLUMNS):
        raise UserError(
            f"{source}: no column {missing[0]!r}; a box needs all of {', '.join(BOX_COLUMNS)}; "
            f"found: {', '.join(rows.names)}"
        )


def check_values(rows: Rows) -> None:
    """Raises a UserError for an unknown role or split; the error names the flag that maps it."""
    for column, allowed in (("split", SPLITS), ("role", ROLES)):
        if column not in rows.names:
            continue
        # An empty cell gets the default.
        values = rows.table[column]
        unknown = pc.invert(pc.is_in(values, value_set=pa.array(["", *allowed])))
        index = pc.index(unknown, True).as_py()
        if index >= 0:
            others = sorted(values.filter(unknown).unique().to_pylist())
            shown = ", ".join(others[:_MOST_VALUES]) + " ..." * (len(others) > _MOST_VALUES)
            raise rows.wrong(
                index,
                column,
                f"expected one of {', '.join(allowed)}; to map: {shown} (--map_{column}s=old:new, "
                "or old: to omit its rows)",
            )


def check_missing(rows: Rows, missing: str) -> None:
    """Leaves out rows whose images do not exist.

    A file whose name has another Unicode form, such as macOS uses for umlauts, exists: its row
    takes the file's own name.

    Args:
      rows: the dataset's rows, image paths cleaned.
      missing: "error", or "skip" to leave out rows whose image is missing.

    Raises:
      UserError: all images are missing, or one is and `missing` is "error".
    """
    gone = is_missing(rows.table["image"], rows.root)
    if pc.any(gone).as_py():
        gone = _name_as_stored(rows, gone)
    count, total = pc.sum(gone).as_py() or 0, rows.table.num_rows
    if not count:
        return
    index = pc.index(gone, True).as_py()
    image = rows.table["image"][index].as_py()
    if missing == ERROR or count == total:
        other = similar_file(rows.root, image)
        hint = f", but {other!r} exists" if other else ""
        if other == image.rpartition("/")[2]:
            hint = "; the name exists but is not a file, perhaps a directory or a broken link"
        remedy = "" if count == total else "; --missing=skip leaves them out"
        for separator in _SEPARATORS:
            first, *others = image.split(separator)
            if others and (rows.root / first.strip()).is_file():
                remedy = f"; --image_separator='{separator}' gives each image in a cell its own row"
        raise rows.wrong(
            index,
            "image",
            f"no such file in {rows.root}{hint} (missing in {count} of {total} rows){remedy}",
        )
    rows.leave_out(gone, f"rows whose image is missing: {count:,} of {total:,} (e.g. {image})")


def _name_as_stored(rows: Rows, gone: pa.ChunkedArray) -> pa.ChunkedArray:
    """Renames images to the Unicode form of their files; returns which are still missing."""
    for form in ("NFC", "NFD"):
        names = rows.table["image"]
        # Arrow's own NFC does not compose.
        others = pa.array([unicodedata.normalize(form, name) for name in names.to_pylist()])
        is_there = pc.and_not(gone, is_missing(others, rows.root))
        rows.put("image", pc.if_else(is_there, others, names))
        gone = pc.and_not(gone, is_there)
    return gone


def check_duplicates(rows: Rows, duplicates: str) -> None:
    """Leaves out rows with the same image, box and item as an earlier one.

    Args:
      rows: a manifest's rows, checked.
      duplicates: "error", or "skip" to keep the first of each.

    Raises:
      UserError: there is a duplicate and `duplicates` is "error".
    """
    firsts = first_alike(rows.table, ["image", "item_id", *BOX_COLUMNS])
    again = firsts != np.arange(rows.table.num_rows)
    count = int(again.sum())
    if count and duplicates == ERROR:
        index = int(np.argmax(again))
        first, place = rows.places(rows.table, [firsts[index], index])
        raise rows.wrong(
            index,
            "image",
            f"{first.seen_from(place)} has the same image, box and item ({count} of {len(again)} "
            "rows are duplicates); --duplicates=skip keeps the first of each",
        )
    if count:
        note = f"rows with the image, box and item of an earlier row: {count:,}"
        rows.leave_out(pa.array(again), note)


def check_boxes(rows: Rows) -> None:
    """Checks that every box lies within its image, give or take a pixel.

    Image sizes are read from file headers, in threads. Unreadable images are skipped and counted;
    preparing lists them.

    Raises:
      UserError: a box extends beyond its image.
    """
    indices = np.flatnonzero(rows.table["x_min"].is_valid().to_numpy())
    boxed = rows.table.select(["image", *BOX_COLUMNS]).take(pa.array(indices))
    images = boxed["image"].unique()
    widths, heights = image_sizes(rows.root, images.to_pylist())
    which = pc.index_in(boxed["image"], value_set=images).to_numpy()
    width, height = widths[which], heights[which]
    x_min, y_min, x_max, y_max = (boxed[name].to_numpy() for name in BOX_COLUMNS)
    beyond = np.stack([-x_min, -y_min, x_max - width, y_max - height])
    # Unreadable images have size NaN.
    outside = (beyond > _BOX_TOLERANCE) & ~np.isnan(width)
    wrong = outside.any(axis=0)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise rows.wrong(
            indices[index],
            BOX_COLUMNS[int(np.argmax(outside[:, index]))],
            f"the box extends beyond {boxed['image'][index].as_py()!r} of "
            f"{width[index]:g}x{height[index]:g} pixels ({wrong.sum()} of {len(wrong)} boxes do); "
            "with --nocheck_boxes, preparing clips such boxes and rejects those entirely outside",
        )
    unread = int(np.isnan(widths).sum())
    if unread:
        note = f"unreadable images with a box: {unread:,}; preparing lists them"
        rows.notes.append(note)
