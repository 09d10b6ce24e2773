"""From a dataset on disk to a manifest: convert, name, check, split, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.importers.checks import (
    check_boxes,
    check_duplicates,
    check_missing,
)
from apparel_embed.data.importers.derive import ERROR, SKIP, DeriveOptions, derive
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.paths import (
    are_remote,
    below_root,
    clean_paths,
    relative_to_manifest,
)
from apparel_embed.data.importers.registry import format_of
from apparel_embed.data.importers.splitting import SplitOptions, split, untested
from apparel_embed.data.importers.writing import check_output, manifest_table, write_manifest
from apparel_embed.data.manifest import (
    BOX_COLUMNS,
    REQUIRED_COLUMNS,
    RESERVED_COLUMN,
    ROLES,
    SPLITS,
    Place,
    Places,
    check_rows,
)
from apparel_embed.data.verticals import map_values

# Of unknown roles or splits an error lists no more than a line holds.
_MOST_VALUES = 10


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import, and how.

    Attributes:
      format: the name of a layout, see `registry.FORMATS`.
      root: the dataset's directory.
      output: the manifest to write, CSV or Parquet by its ending.
      options: what the layout itself is told; None for its defaults.
      derive: what columns are made of.
      verticals: other names of verticals, "" to leave a vertical out.
      roles: the same for roles.
      splits: the same for splits.
      missing: "error" or "skip" for rows whose picture is missing; None for the layout's default.
      split: shares to hold out.
    """

    format: str
    root: Path
    output: Path
    options: Any = None
    derive: DeriveOptions = dataclasses.field(default_factory=DeriveOptions)
    verticals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: str | None = None
    duplicates: str = setting(
        ERROR,
        "what becomes of rows with a picture, box and item that an earlier row has",
        choices=(ERROR, SKIP),
    )
    check_boxes: bool = setting(
        True,
        "compare boxes with the sizes of their pictures, which is to read the head of each; a box "
        "may reach out by 1 pixel",
    )
    strict: bool = setting(False, "make it an error if counts differ from the published ones")
    split: SplitOptions = dataclasses.field(default_factory=SplitOptions)


@dataclasses.dataclass(frozen=True)
class ImportResult:
    """What came of an import.

    Attributes:
      table: the manifest's rows.
      warnings: counts that differ from the published ones.
      notes: what was left out and what else the user should know, a line each.
      is_new: False if the same manifest was there already.
    """

    table: pa.Table
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    is_new: bool


def import_dataset(config: ImportConfig) -> ImportResult:
    """Writes the manifest of a dataset; pictures stay where they are.

    The manifest names them relative to itself where they lie beside or below it, else by absolute
    paths. The same dataset and settings give the same bytes.

    Args:
      config: what to import.

    Raises:
      UserError: something in the dataset or the settings is wrong; the message names the dataset's
        own file and row. Nothing was written then.
    """
    layout = format_of(config.format)
    root, output = Path(config.root), Path(config.output)
    if not root.is_dir():
        raise UserError(f"--root={root} is no directory; name the one that holds the dataset")
    check_output(output)
    imported = layout.convert(root, config.options)
    warnings = compare_counts(imported.counts, layout.published)
    if warnings and config.strict:
        raise UserError(f"{root}: {'; '.join(warnings)}; without --strict this is a warning")
    table, notes = _rows(imported, config, config.missing or layout.missing)
    table, more = split(table, config.split)
    notes += more + untested(table) + _remote(table)
    images = relative_to_manifest(table["image"], root, output)
    table = table.set_column(table.column_names.index("image"), "image", images)
    table = manifest_table(table)
    return ImportResult(table, warnings, notes, write_manifest(table, output))


def compare_counts(found: Mapping[str, int], published: Mapping[str, int]) -> tuple[str, ...]:
    """Returns a line for each count that differs from the published one, with both numbers."""
    return tuple(
        f"{name}: {found.get(name, 0):,} found, but {count:,} published"
        for name, count in published.items()
        if found.get(name, 0) != count
    )


def _rows(
    imported: Imported, config: ImportConfig, missing: str
) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the checked rows of a manifest, and notes on what was left out."""
    root = Path(config.root)

    def places(table: pa.Table, indices: Sequence[int]) -> list[Place]:
        sources = table.select([SOURCE_FILE, SOURCE_ROW]).take(pa.array(indices)).to_pylist()
        return [_place(root, row[SOURCE_FILE], row[SOURCE_ROW]) for row in sources]

    notes = imported.notes
    if not imported.table.num_rows:
        raise UserError("; ".join([f"{root}: no picture that a row could be made of", *notes]))
    table, more = derive(_without_nulls(imported.table), config.derive, places)
    notes += more
    (first,) = places(table, [0])
    # Of files without rows each is a row itself, and none of them has the columns.
    _check_columns(table, str(root) if first.row is None else first.file)
    for column, mapping in (
        ("vertical", config.verticals),
        ("role", config.roles),
        ("split", config.splits),
    ):
        if mapping and column not in table.column_names:
            raise UserError(f"--map_{column}s: the dataset has no column {column!r} to map")
        before = table.num_rows
        table = map_values(table, column, mapping)
        if table.num_rows < before:
            notes += (f"left out: rows by --map_{column}s: {before - table.num_rows:,}",)
    _check_values(table, places)
    table = below_root(clean_paths(table), root)
    table, more = check_missing(table, root, places, missing)
    notes += more
    table = check_rows(table, places)
    table, more = check_duplicates(table, places, config.duplicates)
    notes += more
    if config.check_boxes:
        notes += check_boxes(table, root, places)
    return table.drop_columns([SOURCE_FILE, SOURCE_ROW]), notes


def _place(root: Path, file: str, row: int | None) -> Place:
    """Returns where a row of a dataset stands."""
    return Place(str(root / file), row, "element" if file.endswith(".json") else "row")


def _without_nulls(table: pa.Table) -> pa.Table:
    """Returns the table with "" for texts that are null."""
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and table.column(number).null_count:
            filled = pc.fill_null(table.column(number), "")
            table = table.set_column(number, field.name, filled)
    return table


def _check_columns(table: pa.Table, source: str) -> None:
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


def _check_values(table: pa.Table, places: Places) -> None:
    """Raises a UserError for a role or split that is none, with the flag that would map it."""
    for column, allowed in (("split", SPLITS), ("role", ROLES)):
        if column not in table.column_names:
            continue
        # An empty cell gets the default.
        unknown = pc.invert(pc.is_in(table[column], value_set=pa.array(["", *allowed])))
        index = pc.index(unknown, True).as_py()
        if index < 0:
            continue
        (place,) = places(table, [index])
        values = sorted(table[column].filter(unknown).unique().to_pylist())
        shown = ", ".join(values[:_MOST_VALUES]) + (" ..." if len(values) > _MOST_VALUES else "")
        raise UserError(
            f"{place}: column {column!r}: {table[column][index].as_py()!r}; allowed: "
            f"{', '.join(allowed)}; to map: {shown} (--map_{column}s=old:new, or old: to leave its "
            "rows out)"
        )


def _remote(table: pa.Table) -> tuple[str, ...]:
    """Returns a note if pictures are not on this machine."""
    count = pc.sum(are_remote(table["image"])).as_py()
    if not count:
        return ()
    return (
        f"pictures that are URLs, which preparing does not download: {count:,}; fetch them, and "
        "name the files by a template, e.g. --pattern='(?P<file>[^/]+)$' --columns=image:{file}",
    )
