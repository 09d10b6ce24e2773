"""Imports a dataset on disk as a manifest: converts, renames, checks, splits, writes."""

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich import box
from rich.table import Table

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path
from apparel_embed.common.settings import setting
from apparel_embed.common.text import plain_text
from apparel_embed.data.importers.checks import (
    check_boxes,
    check_columns,
    check_duplicates,
    check_missing,
    check_values,
)
from apparel_embed.data.importers.derive import DeriveOptions, derive
from apparel_embed.data.importers.image_files import are_remote, clean_paths, relative_to_manifest
from apparel_embed.data.importers.layout import ERROR, SKIP, LayoutOptions
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.importers.rows import SOURCE_FILE, SOURCE_ROW, Rows
from apparel_embed.data.importers.splitting import SplitOptions, split
from apparel_embed.data.manifest import (
    BOX_COLUMNS,
    REQUIRED_COLUMNS,
    RESERVED_VERTICAL,
    SPLITS,
    check_rows,
)
from apparel_embed.data.text_tables import is_parquet
from apparel_embed.data.verticals import map_values


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import, and how.

    Attributes:
      format: the name of a layout, see `registry.FORMATS`.
      root: the dataset's directory.
      output: the manifest to write, CSV or Parquet by its extension.
      options: the layout's settings.
      derive: how to derive columns.
      verticals: new names by old names of verticals, "" to leave a vertical out.
      roles: the same for roles.
      splits: the same for splits.
      missing: "error" or "skip" for rows whose image is missing; None for the layout's default.
      split: the fractions to hold out.
    """

    format: str
    root: Path
    output: Path
    options: LayoutOptions = dataclasses.field(default_factory=LayoutOptions)
    derive: DeriveOptions = dataclasses.field(default_factory=DeriveOptions)
    verticals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    roles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: str | None = None
    duplicates: str = setting(
        ERROR,
        "what to do with rows that repeat the image, box and item of an earlier row",
        choices=(ERROR, SKIP),
    )
    check_boxes: bool = setting(
        True,
        "check that boxes lie within their images, give or take 1 pixel; reads the header of each "
        "image",
    )
    strict: bool = setting(False, "fail if counts differ from the published ones")
    split: SplitOptions = dataclasses.field(default_factory=SplitOptions)


@dataclasses.dataclass(frozen=True)
class ImportResult:
    """The outcome of an import.

    Attributes:
      table: the manifest's rows.
      warnings: counts that differ from the published ones.
      notes: what was left out and other remarks for the user, one line each.
      is_new: False if the same manifest existed already.
    """

    table: pa.Table
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    is_new: bool


def import_dataset(config: ImportConfig) -> ImportResult:
    """Writes the manifest of a dataset; images stay where they are.

    Images in or below the manifest's directory get paths relative to it, others absolute paths.
    The same dataset and settings give the same bytes.

    Args:
      config: what to import.

    Raises:
      UserError: the dataset or a setting is wrong; the error names the dataset's own file and row.
        Nothing is written then.
    """
    if config.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"--format={config.format} is unknown; expected one of {known}")
    layout = FORMATS[config.format]
    root, output = Path(config.root), Path(config.output)
    if not root.is_dir():
        raise UserError(f"--root={root} is not a directory; expected the dataset's directory")
    if not is_parquet(output) and output.suffix.lower() != ".csv":
        raise UserError(f"--output={output}: expected a name that ends in .csv or .parquet")
    if output.is_dir():
        raise UserError(f"--output={output} is a directory; name a file in it, e.g. manifest.csv")
    rows = layout.convert(root, config.options)
    warnings = compare_counts(rows.counts, layout.published)
    if warnings and config.strict:
        raise UserError(f"{root}: {'; '.join(warnings)}; without --strict this is a warning")
    if not rows.table.num_rows:
        raise UserError("; ".join([f"{root}: no usable image", *rows.notes]))
    derive(rows, config.derive)
    check_columns(rows)
    _map(rows, config)
    check_values(rows)
    clean_paths(rows)
    check_missing(rows, config.missing or layout.missing)
    rows.table = check_rows(rows.table, rows.places)
    check_duplicates(rows, config.duplicates)
    if config.check_boxes:
        check_boxes(rows)
    split(rows, config.split)
    _note_remote(rows)
    rows.put("image", relative_to_manifest(rows.table["image"], root, output))
    table = manifest_table(rows.table.drop_columns([SOURCE_FILE, SOURCE_ROW]))
    return ImportResult(table, warnings, tuple(rows.notes), write_manifest(table, output))


def compare_counts(found: Mapping[str, int], published: Mapping[str, int]) -> tuple[str, ...]:
    """Returns a line for each count that differs from the published one, with both numbers."""
    return tuple(
        f"{name}: found {found.get(name, 0):,}, but {count:,} were published"
        for name, count in published.items()
        if found.get(name, 0) != count
    )


def _map(rows: Rows, config: ImportConfig) -> None:
    """Renames verticals, roles and splits; leaves out rows mapped to an empty name."""
    mappings = {"vertical": config.verticals, "role": config.roles, "split": config.splits}
    for column, mapping in mappings.items():
        if mapping and column not in rows.names:
            raise UserError(f"--map_{column}s: the dataset has no column {column!r} to map")
        before = rows.table.num_rows
        rows.table = map_values(rows.table, column, mapping)
        if rows.table.num_rows < before:
            lost = before - rows.table.num_rows
            rows.notes.append(f"left out: rows dropped by --map_{column}s: {lost:,}")


def _note_remote(rows: Rows) -> None:
    remote = pc.sum(are_remote(rows.table["image"])).as_py()
    if remote:
        rows.notes.append(
            f"images that are URLs, which preparing does not download: {remote:,}; download them "
            "and map URLs to files: --pattern='(?P<file>[^/]+)$' --columns=image:{file}"
        )


def manifest_table(table: pa.Table) -> pa.Table:
    """Returns the table with known columns first, and without the box if no row has one."""
    known = [*REQUIRED_COLUMNS, "split", "role"]
    if table["x_min"].null_count < table.num_rows:
        known += BOX_COLUMNS
    others = (name for name in table.column_names if name not in (*known, *BOX_COLUMNS))
    return table.select([*known, *others])


def write_manifest(table: pa.Table, path: Path) -> bool:
    """Writes a manifest atomically; never overwrites a different one.

    Args:
      table: the manifest, columns in order.
      path: the file, CSV or Parquet by its extension.

    Returns:
      False if the same manifest existed already.

    Raises:
      UserError: a file with other content exists, or the manifest cannot be written.
    """
    exists = path.exists()
    try:
        with atomic_path(path) as temporary:
            if is_parquet(path):
                # The bytes must not depend on how the rows are divided into chunks.
                pq.write_table(table.combine_chunks(), temporary, compression="zstd")
            else:
                pyarrow.csv.write_csv(table, temporary)
            if exists and not filecmp.cmp(temporary, path, shallow=False):
                raise UserError(
                    f"--output={path} exists with other content; choose another file or delete it"
                )
    except OSError as error:
        raise UserError(f"--output={path} cannot be written: {error.strerror or error}") from error
    return not exists


def render_counts(table: pa.Table) -> str:
    """Returns a Markdown table of a manifest's items and rows per vertical and split.

    Rows are images, or garments if an image shows several. Unlabelled rows without an item count
    only as rows. The last line is the total.
    """
    items = pc.if_else(pc.equal(table["item_id"], ""), None, table["item_id"])
    keys = ["vertical", "split"]
    counted = table.select(keys).append_column("item", items).group_by(keys)
    counts = [("item", "count_distinct", pc.CountOptions(mode="only_valid")), ("split", "count")]
    cells: dict[tuple[str, str], tuple[int, int]] = {}
    for row in counted.aggregate(counts).to_pylist():
        cells[row["vertical"], row["split"]] = (row["item_count_distinct"], row["split_count"])
    splits = [name for name in SPLITS if any(name == split for _, split in cells)]
    verticals = sorted({vertical for vertical, _ in cells})
    text = Table(box=box.MARKDOWN)
    text.add_column("vertical", no_wrap=True)
    for name in splits:
        text.add_column(f"{name} items", justify="right", no_wrap=True)
        text.add_column(f"{name} rows", justify="right", no_wrap=True)
    for vertical, parts in [*((v, [v]) for v in verticals), (RESERVED_VERTICAL, verticals)]:
        line = [vertical]
        for name in splits:
            counts_of_parts = [cells.get((part, name), (0, 0)) for part in parts]
            line += [f"{sum(column):,}" for column in zip(*counts_of_parts)]
        text.add_row(*line)
    return plain_text(text)
