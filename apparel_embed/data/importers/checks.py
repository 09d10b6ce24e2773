"""Checks of a dataset's rows beyond those of any manifest: pictures, duplicates, boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import first_alike
from apparel_embed.data.importers.derive import ERROR
from apparel_embed.data.importers.paths import is_missing, similar_file
from apparel_embed.data.importers.picture_sizes import picture_sizes
from apparel_embed.data.manifest import BOX_COLUMNS, Places

# Annotators count pixels from 0 or from 1, and round.
BOX_TOLERANCE = 1.0

_Checked = tuple[pa.Table, tuple[str, ...]]


def check_missing(table: pa.Table, root: Path, places: Places, missing: str) -> _Checked:
    """Returns the rows whose pictures are there, and a note on the others.

    Args:
      table: rows with clean paths.
      root: the dataset's root.
      places: tells where rows stand.
      missing: "error", or "skip" to leave rows without a picture out.

    Raises:
      UserError: a picture is missing and none may be, or all are missing.
    """
    gone = is_missing(table["image"], root)
    count = pc.sum(gone).as_py() or 0
    if not count:
        return table, ()
    index = pc.index(gone, True).as_py()
    image = table["image"][index].as_py()
    if missing == ERROR or count == table.num_rows:
        other = similar_file(root, image)
        if other == image.rpartition("/")[2]:
            hint = ", but something else of that name, such as a directory or a broken link"
        else:
            hint = f", but there is {other!r}" if other else ""
        raise UserError(
            f"{places(table, [index])[0]}: column 'image': {image!r}; no such file in {root}{hint}"
            + f" ({count} of {table.num_rows} rows have no picture)"
            + ("" if count == table.num_rows else "; --missing=skip leaves them out")
        )
    share = f"{count:,} of {table.num_rows:,}"
    note = f"left out: rows whose picture is missing: {share} (e.g. {image})"
    return table.filter(pc.invert(gone)), (note,)


def check_duplicates(table: pa.Table, places: Places, duplicates: str) -> _Checked:
    """Returns the table without rows that are there already, and a note on them.

    A row is a duplicate of an earlier one with the same picture, box and item.

    Args:
      table: checked rows of a manifest.
      places: tells where rows stand.
      duplicates: "error", or "skip" to keep the first of each.

    Raises:
      UserError: there is a duplicate and none may be.
    """
    firsts = first_alike(table, ["image", "item_id", *BOX_COLUMNS])
    is_first = firsts == np.arange(table.num_rows)
    if is_first.all():
        return table, ()
    count = int((~is_first).sum())
    if duplicates != ERROR:
        note = f"left out: rows of a picture, box and item that are there already: {count:,}"
        return table.filter(pa.array(is_first)), (note,)
    index = int(np.argmin(is_first))
    first, place = places(table, [firsts[index], index])
    raise UserError(
        f"{place}: column 'image': {table['image'][index].as_py()!r}; {first.seen_from(place)} has "
        f"the same picture, box and item ({count} of {table.num_rows} rows are such duplicates); "
        "--duplicates=skip keeps the first of each"
    )


def check_boxes(table: pa.Table, root: Path, places: Places) -> tuple[str, ...]:
    """Checks that every box lies inside its picture, give or take a pixel; returns notes.

    The sizes are read from the heads of the files, by threads. Pictures that cannot be read are
    passed over and counted; preparing lists them.

    Args:
      table: checked rows of a manifest, with clean paths.
      root: the dataset's root.
      places: tells where rows stand.

    Raises:
      UserError: a box reaches out of its picture.
    """
    rows = np.flatnonzero(table["x_min"].is_valid().to_numpy())
    boxed = table.select(["image", *BOX_COLUMNS]).take(pa.array(rows))
    images = boxed["image"].unique()
    if not len(images):
        return ()
    widths, heights = picture_sizes(root, images.to_pylist())
    which = pc.index_in(boxed["image"], value_set=images).to_numpy()
    width, height = widths[which], heights[which]
    outside = {
        "x_min": boxed["x_min"].to_numpy() < -BOX_TOLERANCE,
        "y_min": boxed["y_min"].to_numpy() < -BOX_TOLERANCE,
        "x_max": boxed["x_max"].to_numpy() > width + BOX_TOLERANCE,
        "y_max": boxed["y_max"].to_numpy() > height + BOX_TOLERANCE,
    }
    # Sizes of what could not be read are NaN.
    wrong = np.any(list(outside.values()), axis=0) & ~np.isnan(width)
    if wrong.any():
        index = int(np.argmax(wrong))
        name = next(name for name, values in outside.items() if values[index])
        (place,) = places(table, [rows[index]])
        raise UserError(
            f"{place}: column {name!r}: {boxed[name][index].as_py():g}; the box reaches out of "
            f"{boxed['image'][index].as_py()!r}, which has {width[index]:g}x{height[index]:g} "
            f"pixels ({wrong.sum()} of {len(wrong)} boxes do); --nocheck_boxes leaves them to "
            "preparing, which takes the part inside and rejects what has none"
        )
    unread = int(np.isnan(widths).sum())
    if not unread:
        return ()
    return (f"pictures with a box that cannot be read: {unread:,}; preparing lists them",)
