"""Writing a manifest: whole or not at all, never over another, the same rows as the same bytes."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path
from apparel_embed.data.manifest import BOX_COLUMNS, REQUIRED_COLUMNS
from apparel_embed.data.text_tables import is_parquet

CSV_SUFFIX = ".csv"


def check_output(path: Path) -> None:
    """Raises a UserError if the name is none for a manifest."""
    if not is_parquet(path) and path.suffix.lower() != CSV_SUFFIX:
        raise UserError(f"--output={path} is not allowed; its name must end in .csv or .parquet")
    if path.is_dir():
        raise UserError(f"--output={path} is a directory; name a file in it, e.g. manifest.csv")


def manifest_table(table: pa.Table) -> pa.Table:
    """Returns the columns of a manifest in order: known ones first, no box if no row has one."""
    known = [*REQUIRED_COLUMNS, "split", "role"]
    if table["x_min"].null_count < table.num_rows:
        known += BOX_COLUMNS
    others = (name for name in table.column_names if name not in (*known, *BOX_COLUMNS))
    return table.select([*known, *others])


def write_manifest(table: pa.Table, path: Path) -> bool:
    """Writes a manifest, unless it is there already.

    Args:
      table: its columns in order.
      path: CSV or Parquet, by its ending.

    Returns:
      False if the same manifest was there already.

    Raises:
      UserError: something else is there, or it cannot be written.
    """
    there = path.exists()
    try:
        with atomic_path(path) as temporary:
            if is_parquet(path):
                # The bytes are not to depend on how the rows happen to be cut into chunks.
                pq.write_table(table.combine_chunks(), temporary, compression="zstd")
            else:
                pyarrow.csv.write_csv(table, temporary)
            if there and not filecmp.cmp(temporary, path, shallow=False):
                raise UserError(
                    f"--output={path} exists and holds something else; name another file or "
                    "remove it"
                )
    except OSError as error:
        raise UserError(f"--output={path} cannot be written: {error.strerror or error}") from error
    return not there
