"""Reads what an index is filled with: a prepared dataset's gallery, or embeddings made before."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.search.version import IndexedPicture
from apparel_embed.serving.local import LocalModel

GALLERY = ("gallery", "both")
_PICTURES_AT_ONCE = 1_000
_BOX = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = ("image", "item_id", "vertical", "embedding")
# Pictures and their embeddings, float32 [n, dim].
Rows = Iterator[tuple[list[IndexedPicture], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class IndexSource:
    """What is indexed: a prepared dataset's gallery, or what bulk embedding wrote.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset; not opened with `bulk`.
      splits: index pictures of these only; () for all.
      embeddings: of the dataset's records, made by the same model; None to embed them.
      bulk: Parquet file, or directory of some, of pictures and their embeddings.
    """

    saved_model: Path
    prepared: Path
    splits: tuple[str, ...] = ()
    embeddings: Path | None = None
    bulk: Path | None = None


def picture_key(picture: str, box: tuple[float, ...] | None = None) -> str:
    """Returns what identifies a picture in the index, however often it is built.

    Args:
      picture: path or URI as the manifest has it.
      box: x_min, y_min, x_max, y_max: a photograph of several garments has several boxes.
    """
    text = picture if box is None else f"{picture}\n{','.join(f'{edge:g}' for edge in box)}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def dataset_pictures(dataset: PreparedDataset, records: np.ndarray) -> list[IndexedPicture]:
    """Returns what the index keeps of records."""
    boxes = np.stack([dataset.column(edge) for edge in _BOX], axis=1).astype(float)
    images, items, verticals = (dataset.column(name) for name in ("image", "item_id", "vertical"))
    return [
        IndexedPicture(
            key=picture_key(
                images[record], None if np.isnan(boxes[record]).any() else tuple(boxes[record])
            ),
            picture=images[record],
            item=items[record],
            vertical=verticals[record],
            record=int(record),
        )
        for record in records
    ]


def gallery_records(dataset: PreparedDataset, splits: tuple[str, ...] = ()) -> np.ndarray:
    """Returns the records to be found: int64, ascending.

    Args:
      dataset: where they are.
      splits: of these only; () for all but those without label.

    Raises:
      UserError: if there is none.
    """
    chosen = [
        dataset.select(split=split, roles=GALLERY) for split in splits or ("train", "val", "test")
    ]
    records = np.unique(np.concatenate(chosen))
    if not len(records):
        raise UserError(f"{dataset.directory}: no record with role gallery or both in these splits")
    return records


def embed_records(dataset: PreparedDataset, records: np.ndarray, model: LocalModel) -> Rows:
    """Embeds records with a SavedModel; those it finds no picture in are left out."""
    for start in range(0, len(records), _PICTURES_AT_ONCE):
        some = records[start : start + _PICTURES_AT_ONCE]
        embeddings, valid, _ = model.embed(dataset.read_images(some))
        yield dataset_pictures(dataset, some[valid]), embeddings[valid]


def stored_records(dataset: PreparedDataset, records: np.ndarray, path: Path) -> Rows:
    """Yields embeddings of records that `write_embeddings` has written.

    Raises:
      UserError: if the file lacks a record.
    """
    known, embeddings = read_embeddings(path)
    places = np.searchsorted(known, records)
    found = places < len(known)
    found[found] = known[places[found]] == records[found]
    if not found.all():
        raise UserError(
            f"{path}: record {records[~found][0]} of {dataset.directory} is missing "
            f"({(~found).sum()} in all)"
        )
    for start in range(0, len(records), _PICTURES_AT_ONCE):
        some = slice(start, start + _PICTURES_AT_ONCE)
        yield dataset_pictures(dataset, records[some]), _unit(embeddings[places[some]])


def bulk_rows(path: Path) -> Rows:
    """Yields what bulk embedding has written: `image`, `item_id`, `vertical` and `embedding`.

    Args:
      path: a Parquet file, or a directory of some.

    Raises:
      UserError: if a column is missing, or a value is not what is allowed.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet here")
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
            for name in _COLUMNS:
                if name not in parquet.schema_arrow.names:
                    raise UserError(
                        f"{file}: no column {name!r}; image, item_id, vertical and "
                        "embedding are needed"
                    )
            first = 1
            for batch in parquet.iter_batches(_PICTURES_AT_ONCE):
                yield _bulk_batch(batch, file, first)
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: cannot be read as Parquet: {error}") from error


def _bulk_batch(
    batch: pa.RecordBatch, file: Path, first: int
) -> tuple[list[IndexedPicture], np.ndarray]:
    """Returns the pictures and embeddings of some rows, the first of which has number `first`."""
    columns = {name: batch.column(name).to_pylist() for name in _COLUMNS}
    boxes: list[tuple | None] = [None] * batch.num_rows
    if all(edge in batch.schema.names for edge in _BOX):
        edges = zip(*(batch.column(edge).to_pylist() for edge in _BOX))
        boxes = [None if None in box else box for box in edges]
    pictures: list[IndexedPicture] = []
    embeddings: list[list[float]] = []
    for place, box in enumerate(boxes):
        row = {name: values[place] for name, values in columns.items()}
        where = f"{file}: row {first + place}"
        embedding = row["embedding"]
        # Bulk embedding leaves out what the model could not embed.
        if not embedding:
            continue
        image, vertical = (_text(row[name], where, name) for name in ("image", "vertical"))
        item = _text(row["item_id"], where, "item_id", may_miss=True)
        pictures.append(IndexedPicture(picture_key(image, box), image, item, vertical))
        if embeddings and len(embedding) != len(embeddings[0]):
            raise UserError(
                f"{where}, column embedding: has {len(embedding)} numbers; the rows before have "
                f"{len(embeddings[0])}"
            )
        if not all(isinstance(number, (int, float)) for number in embedding):
            raise UserError(f"{where}, column embedding: has what is no number")
        embeddings.append(embedding)
    return pictures, _unit(np.array(embeddings, np.float32)) if pictures else np.empty((0, 0))


def _text(value: Any, where: str, column: str, *, may_miss: bool = False) -> str:
    """Returns a value as text: whole numbers are taken as they are written.

    A column of whole numbers of which some are missing is one of floating-point numbers in pandas.
    """
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and value.strip():
        return value
    if value is None or value != value or value == "":
        if may_miss:
            return ""
        raise UserError(f"{where}, column {column}: is missing; a text is needed")
    raise UserError(
        f"{where}, column {column}: is {str(value)[:100]!r} ({type(value).__name__}); allowed are "
        "texts and whole numbers"
    )


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings at unit length; zeros stay, and are refused by the index."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths == 0, 1, lengths)
