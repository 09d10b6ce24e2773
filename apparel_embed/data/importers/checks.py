"""Checks of a dataset's rows beyond those of any manifest, and with the flags that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import first_alike
from apparel_embed.data.importers.image_files import image_sizes, is_missing, similar_file
from apparel_embed.data.importers.imported import ERROR, SOURCE_FILE, SOURCE_ROW, wrong_value
from apparel_embed.data.manifest import (
    BOX_COLUMNS,
    REQUIRED_COLUMNS,
    RESERVED_COLUMN,
    ROLES,
    SPLITS,
    Places,
)

# Annotators count pixels from 0 or from 1, and round.
BOX_TOLERANCE = 1.0
# Of unknown roles or splits an error lists no more than a line holds.
_MOST_VALUES = 10

_Checked = tuple[pa.Table, tuple[str, ...]]


def check_columns(table: pa.Table, source: str) -> None:
    """Raises a UserError if a column is missing or has a name that is not allowed.

    Args:
      table: rows of a dataset, with their sources.
      source: the file or directory that the columns are from, as errors name it.
    """
    names = [name for name in table.column_names if name not in (SOURCE_FILE, SOURCE_ROW)]
    for name in REQUIRED_COLUMNS:
        if name not in names:
            hint = " or --vertical=NAME" if name == "vertical" else ""
            raise UserError(
                f"{source}: no column {name!r}; there are {', '.join(names)}; say what it is made "
                f"of by --columns={name}:COLUMN, by a group (?P<{name}>...) of --pattern{hint}"
            )
    if RESERVED_COLUMN in names:
        raise UserError(
            f"{source}: column {RESERVED_COLUMN!r} has a reserved name; rename it by "
            f"--columns=NAME:{RESERVED_COLUMN} or leave it out by --columns={RESERVED_COLUMN}:"
        )
    missing = [name for name in BOX_COLUMNS if name not in names]
    if 0 < len(missing) < len(BOX_COLUMNS):
        raise UserError(
            f"{source}: no column {missing[0]!r}; a box needs all of {', '.join(BOX_COLUMNS)}; "
            f"there are {', '.join(names)}"
        )


def check_values(table: pa.Table, places: Places) -> None:
    """Raises a UserError for a role or split that is none, with the flag that would map it."""
    for column, allowed in (("split", SPLITS), ("role", ROLES)):
        if column not in table.column_names:
            continue
        # An empty cell gets the default.
        unknown = pc.invert(pc.is_in(table[column], value_set=pa.array(["", *allowed])))
        index = pc.index(unknown, True).as_py()
        if index >= 0:
            values = sorted(table[column].filter(unknown).unique().to_pylist())
            shown = ", ".join([*values[:_MOST_VALUES], *["..."][: len(values) - _MOST_VALUES]])
            raise wrong_value(
                places(table, [index])[0],
                column,
                table[column][index].as_py(),
                f"allowed: {', '.join(allowed)}; to map: {shown} (--map_{column}s=old:new, or old: "
                "to leave its rows out)",
            )


def check_missing(table: pa.Table, root: Path, places: Places, missing: str) -> _Checked:
    """Returns the rows whose images are there, and a note on the others.

    Args:
      table: rows with clean paths.
      root: the dataset's root.
      places: tells where rows stand.
      missing: "error", or "skip" to leave rows without an image out.

    Raises:
      UserError: an image is missing and none may be, or all are missing.
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
        raise wrong_value(
            places(table, [index])[0],
            "image",
            image,
            f"no such file in {root}{hint} ({count} of {table.num_rows} rows have no image)"
            + ("" if count == table.num_rows else "; --missing=skip leaves them out"),
        )
    share = f"{count:,} of {table.num_rows:,}"
    note = f"left out: rows whose image is missing: {share} (e.g. {image})"
    return table.filter(pc.invert(gone)), (note,)


def check_duplicates(table: pa.Table, places: Places, duplicates: str) -> _Checked:
    """Returns the table without rows that are there already, and a note on them.

    A row is a duplicate of an earlier one with the same image, box and item.

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
        note = f"left out: rows of an image, box and item that are there already: {count:,}"
        return table.filter(pa.array(is_first)), (note,)
    index = int(np.argmin(is_first))
    first, place = places(table, [firsts[index], index])
    raise wrong_value(
        str(place),
        "image",
        table["image"][index].as_py(),
        f"{first.seen_from(place)} has the same image, box and item ({count} of {table.num_rows} "
        "rows are such duplicates); --duplicates=skip keeps the first of each",
    )


def check_boxes(table: pa.Table, root: Path, places: Places) -> tuple[str, ...]:
    """Checks that every box lies inside its image, give or take a pixel; returns notes.

    The sizes are read from the heads of the files, by threads. Images that cannot be read are
    passed over and counted; preparing lists them.

    Args:
      table: checked rows of a manifest, with clean paths.
      root: the dataset's root.
      places: tells where rows stand.

    Raises:
      UserError: a box reaches out of its image.
    """
    rows = np.flatnonzero(table["x_min"].is_valid().to_numpy())
    boxed = table.select(["image", *BOX_COLUMNS]).take(pa.array(rows))
    images = boxed["image"].unique()
    widths, heights = image_sizes(root, images.to_pylist())
    which = pc.index_in(boxed["image"], value_set=images).to_numpy()
    width, height = widths[which], heights[which]
    x_min, y_min, x_max, y_max = (boxed[name].to_numpy() for name in BOX_COLUMNS)
    beyond = np.stack([-x_min, -y_min, x_max - width, y_max - height])
    # Sizes of what could not be read are NaN.
    outside = (beyond > BOX_TOLERANCE) & ~np.isnan(width)
    wrong = outside.any(axis=0)
    if wrong.any():
        index = int(np.argmax(wrong))
        name = BOX_COLUMNS[int(np.argmax(outside[:, index]))]
        raise UserError(
            f"{places(table, [rows[index]])[0]}: column {name!r}: {boxed[name][index].as_py():g}; "
            f"the box reaches out of {boxed['image'][index].as_py()!r}, which has "
            f"{width[index]:g}x{height[index]:g} pixels ({wrong.sum()} of {len(wrong)} boxes do); "
            "--nocheck_boxes leaves them to preparing, which takes the part inside and rejects "
            "what has none"
        )
    unread = int(np.isnan(widths).sum())
    note = f"images with a box that cannot be read: {unread:,}; preparing lists them"
    return (note,) if unread else ()
