"""Embeddings on disk: Parquet with columns `record` and `embedding`, in record order."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path

_ROWS_PER_GROUP = 65536


def write_embeddings(
    path: str | os.PathLike[str], records: np.ndarray, embeddings: np.ndarray
) -> None:
    """Writes embeddings atomically as Parquet, in record order.

    Args:
      path: the file to write; an existing one is replaced.
      records: [n] unique integers of 0 or more, in any order.
      embeddings: [n, dim] finite numbers, stored as float32.

    Raises:
      UserError: if the arrays are invalid; nothing is written.
    """
    records = np.asarray(records)
    if not np.issubdtype(records.dtype, np.integer):
        raise UserError(f"{path}: records are {records.dtype}; expected integers (int64)")
    # An overflow becomes infinite here and is reported below.
    with np.errstate(over="ignore"):
        embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or embeddings.shape[1] < 1 or records.shape != embeddings.shape[:1]:
        raise UserError(
            f"{path}: records of shape {records.shape} and embeddings of shape "
            f"{embeddings.shape}; expected [n] and [n, dim] with dim at least 1"
        )
    records, embeddings = _in_order(path, records.astype(np.int64), embeddings)
    dim = embeddings.shape[1]
    table = pa.table(
        {
            "record": pa.array(records, pa.int64()),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(embeddings.ravel(), pa.float32()), dim
            ),
        }
    )
    with atomic_path(path) as temporary:
        # Almost all numbers are unique, so a dictionary would only cost space.
        pq.write_table(table, temporary, use_dictionary=False, row_group_size=_ROWS_PER_GROUP)


def read_embeddings(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads embeddings written by `write_embeddings` or in the same format.

    Args:
      path: a Parquet file with columns `record` (int64) and `embedding`
        (fixed_size_list<float32>[dim]); further columns are ignored. Or a directory of such files,
        `embeddings-*.parquet`, as `tools/embed.py` writes for a prepared dataset.

    Returns:
      Records [n] int64, ascending, and embeddings [n, dim] float32 in the same order.

    Raises:
      UserError: if the file does not exist or has another format.
    """
    try:
        files = _files_of(path)
        for file in files:
            schema = pq.read_schema(file)
            _check_schema(file, schema)
        columns = ["record", "embedding"]
        parts = [pq.read_table(file, columns=columns, partitioning=None) for file in files]
        table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected embeddings as Parquet") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    dim = schema.field("embedding").type.list_size
    record_column, embedding_column = table["record"], table["embedding"]
    numbers = [chunk.flatten() for chunk in embedding_column.chunks]
    missing = record_column.null_count + embedding_column.null_count
    missing += sum(chunk.null_count for chunk in numbers)
    if missing:
        raise UserError(f"{path}: {missing} null values; every row needs a record and {dim} floats")
    empty = np.zeros(0, np.float32)
    flat = np.concatenate([empty, *(chunk.to_numpy() for chunk in numbers)])
    return _in_order(path, record_column.to_numpy(), flat.reshape(-1, dim))


def _files_of(path: str | os.PathLike[str]) -> list[Path]:
    if not Path(path).is_dir():
        return [Path(path)]
    files = sorted(Path(path).glob("embeddings-*.parquet"))
    if not files:
        raise UserError(
            f"{path}: a directory without embeddings-*.parquet; expected at least one such file"
        )
    return files


def _check_schema(path: str | os.PathLike[str], schema: pa.Schema) -> None:
    for column in ("record", "embedding"):
        if schema.names.count(column) != 1:
            raise UserError(
                f"{path}: {schema.names.count(column)} columns named {column!r} among "
                f"{schema.names}; expected 'record' and 'embedding' once each"
            )
    record, embedding = schema.field("record").type, schema.field("embedding").type
    if record != pa.int64():
        raise UserError(f"{path}: column 'record' is {record}; expected int64")
    fixed = pa.types.is_fixed_size_list(embedding)
    if not fixed or embedding.value_type != pa.float32() or embedding.list_size < 1:
        raise UserError(
            f"{path}: column 'embedding' is {embedding}; expected fixed_size_list<float32>[dim] "
            "with dim at least 1"
        )


def _in_order(
    path: str | os.PathLike[str], records: np.ndarray, embeddings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows in record order; refuses duplicate records and NaN or infinite numbers."""
    order = np.argsort(records, kind="stable")
    records, embeddings = records[order], embeddings[order]
    if len(records) and records[0] < 0:
        raise UserError(f"{path}: record {records[0]} is negative; expected 0 or more")
    twice = records[1:][records[1:] == records[:-1]]
    if len(twice):
        raise UserError(
            f"{path}: record {twice[0]} occurs more than once ({len(twice)} duplicate rows); "
            "expected each record once"
        )
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise UserError(
            f"{path}: {broken.sum()} of {len(records)} embeddings contain NaN or infinite numbers "
            f"(the first is of record {records[broken.argmax()]})"
        )
    return records, embeddings
