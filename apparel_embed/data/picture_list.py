"""Lists of pictures that may be longer than memory: a manifest's rows, or a directory's files."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from apparel_embed.common.errors import UserError
from apparel_embed.data.locations import beside, locate
from apparel_embed.data.manifest import BOX_COLUMNS
from apparel_embed.data.pictures import SUFFIXES
from apparel_embed.data.text_tables import as_texts

IMAGE = "image"

_PARQUET_SUFFIXES = (".parquet", ".pq")
_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 24


def list_manifest(manifest: str, reserved: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Reads a manifest part by part, of which only `image` and the box are looked at.

    Args:
      manifest: a CSV file (UTF-8, commas, a header line) or Parquet file, here or in a store, with
        a column `image` and, all or none, the box's.
      reserved: names that no column may have.

    Yields:
      Tables in the file's order, all columns as texts, "" where a cell is empty.

    Raises:
      UserError: the file cannot be read or a row is wrong; the message names file, row, column and
        value. Row N is the N-th below the header.
    """
    system, path = locate(manifest)
    if system.get_file_info(path).type != fs.FileType.File:
        raise UserError(f"{manifest}: no such manifest; a CSV or Parquet file is needed")
    first = 1
    try:
        parts = _parquet_parts if path.lower().endswith(_PARQUET_SUFFIXES) else _csv_parts
        for table in parts(system, path):
            if first == 1:
                _check_header(manifest, table.column_names, reserved)
            table = as_texts(manifest, table, first)
            _check_rows(manifest, table, first)
            first += table.num_rows
            yield table
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{manifest}: cannot be read as a manifest: {reason}") from error


def list_directory(directory: str) -> Iterator[pa.Table]:
    """Walks through a directory, here or in a store, by name.

    Args:
      directory: where to look, and in all directories below.

    Yields:
      Tables with the column `image`: paths from `directory` on of files that are pictures by
      their names. Names that begin with a dot are passed over.

    Raises:
      UserError: there is no such directory, or it cannot be read.
    """
    names: list[str] = []
    for name, _ in _files(directory):
        names.append(name)
        if len(names) == _ROWS_AT_ONCE:
            yield pa.table({IMAGE: pa.array(names, pa.string())})
            names = []
    if names:
        yield pa.table({IMAGE: pa.array(names, pa.string())})


def fingerprint_manifest(manifest: str) -> str:
    """Returns the SHA-256 (hex) of a manifest's bytes."""
    total = hashlib.sha256()
    system, path = locate(manifest)
    try:
        with system.open_input_stream(path) as file:
            while block := file.read(_BYTES_AT_ONCE):
                total.update(block)
    except OSError as error:
        raise UserError(f"{manifest}: cannot be read: {error}") from error
    return total.hexdigest()


def fingerprint_directory(directory: str) -> str:
    """Returns the SHA-256 (hex) of the names and sizes of a directory's pictures."""
    total = hashlib.sha256()
    for name, size in _files(directory):
        total.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def in_parts_of(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yields the same rows in tables of `rows` each; the last may have fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting)


def box_of(texts: Sequence[str]) -> tuple[float, float, float, float] | None:
    """Returns x_min, y_min, x_max, y_max from a checked row's texts; None where they are empty."""
    if not texts[0].strip():
        return None
    x_min, y_min, x_max, y_max = (float(text) for text in texts)
    return x_min, y_min, x_max, y_max


def _csv_parts(system: fs.FileSystem, path: str) -> Iterator[pa.Table]:
    with system.open_input_stream(path) as file:
        header = next(csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline="")), [])
    with system.open_input_stream(path) as file:
        yield from (
            pa.Table.from_batches([batch])
            for batch in pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(block_size=_BYTES_AT_ONCE),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
                ),
            )
        )


def _parquet_parts(system: fs.FileSystem, path: str) -> Iterator[pa.Table]:
    with system.open_input_file(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])


def _check_header(manifest: str, header: Sequence[str], reserved: Sequence[str]) -> None:
    found = f"found: {', '.join(header)}"
    if IMAGE not in header:
        raise UserError(f"{manifest}: no column {IMAGE!r}; {found} (separated by commas)")
    for name in header:
        if list(header).count(name) > 1:
            raise UserError(f"{manifest}: column {name!r} is there twice; names must differ")
        if name in reserved:
            raise UserError(f"{manifest}: column {name!r} has a reserved name; rename it")
    box = [name for name in BOX_COLUMNS if name in header]
    if box and len(box) < len(BOX_COLUMNS):
        raise UserError(f"{manifest}: a box needs all of {', '.join(BOX_COLUMNS)}; {found}")


def _check_rows(manifest: str, table: pa.Table, first: int) -> None:
    """Raises a UserError for the first row without an image or with half a box."""
    blank = pc.index(pc.equal(pc.utf8_trim_whitespace(table[IMAGE]), ""), True).as_py()
    if blank >= 0:
        raise UserError(f"{manifest}: row {first + blank}: column {IMAGE!r} is empty")
    if BOX_COLUMNS[0] not in table.column_names:
        return
    for row, texts in enumerate(zip(*(table[name].to_pylist() for name in BOX_COLUMNS))):
        if not _is_box(texts):
            box = dict(zip(BOX_COLUMNS, texts))
            raise UserError(
                f"{manifest}: row {first + row}: box {box}; allowed are four finite numbers of "
                "pixels, each maximum above its minimum, or none at all"
            )


def _is_box(texts: Sequence[str]) -> bool:
    if not any(text.strip() for text in texts):
        return True
    try:
        box = [float(text) for text in texts]
    except ValueError:
        return False
    return all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]


def _files(directory: str, below: str = "") -> Iterator[tuple[str, int]]:
    """Yields path from `directory` on, and size in bytes, of every picture, by name."""
    system, path = locate(beside(below, directory) if below else directory)
    try:
        found = system.get_file_info(fs.FileSelector(path))
    except OSError as error:
        reason = "no such directory" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"{directory}: {' '.join(reason.split())}") from error
    for info in sorted(found, key=lambda info: info.base_name):
        name = f"{below}/{info.base_name}" if below else info.base_name
        if info.base_name.startswith("."):
            continue
        if info.type == fs.FileType.Directory:
            yield from _files(directory, name)
        elif info.base_name.lower().endswith(SUFFIXES):
            yield name, info.size
