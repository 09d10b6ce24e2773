"""What an index is filled with: a prepared dataset's gallery, or embeddings made before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.text_tables import as_texts
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.search.index import IndexedImage

if TYPE_CHECKING:
    from apparel_embed.serving.local import LocalModel

GALLERY = ("gallery", "both")
_IMAGES_AT_ONCE = 1_000
# Of stored embeddings so many are compared with the model's. Reduced precision differs by less.
_COMPARED, _SAME_COSINE = 16, 0.98
_BOX = ("x_min", "y_min", "x_max", "y_max")
_NAMES = ("image", "item_id", "vertical")
# Images and their embeddings, float32 [n, dim].
Rows = Iterator[tuple[list[IndexedImage], np.ndarray]]


def image_key(image: str, box: tuple[float, ...] | None = None) -> str:
    """Returns what identifies an image in the index, by its path or URI in the manifest.

    A photograph of several garments has several boxes: x_min, y_min, x_max, y_max.
    """
    text = image if box is None else f"{image}\n{','.join(f'{edge:g}' for edge in box)}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def content_of(jpeg: bytes) -> str:
    """Returns what stands for an image as the model is given it; see `IndexedImage`."""
    return hashlib.sha256(jpeg).hexdigest()[:32]


def dataset_images(dataset: PreparedDataset, records: np.ndarray) -> list[IndexedImage]:
    """Returns what the index keeps of records."""
    columns = (dataset.column(name)[records] for name in (*_NAMES, *_BOX))
    images = []
    for record, image, item, vertical, *edges in zip(records, *columns):
        box = None if np.isnan(np.array(edges, float)).any() else tuple(map(float, edges))
        images.append(IndexedImage(image_key(image, box), image, item, vertical, int(record)))
    return images


def gallery_records(dataset: PreparedDataset, splits: tuple[str, ...] = ()) -> np.ndarray:
    """Returns the records to be found, of some splits or of all with labels: int64, ascending.

    Raises:
      UserError: if there is none.
    """
    splits = splits or ("train", "val", "test")
    chosen = [dataset.select(split=split, roles=GALLERY) for split in splits]
    records = np.unique(np.concatenate(chosen))
    if not len(records):
        raise UserError(f"{dataset.directory}: no record with role gallery or both in these splits")
    return records


def embed_records(dataset: PreparedDataset, records: np.ndarray, model: LocalModel) -> Rows:
    """Embeds records with a SavedModel; those it finds no image in are left out."""
    for start in range(0, len(records), _IMAGES_AT_ONCE):
        some = records[start : start + _IMAGES_AT_ONCE]
        images = dataset.read_images(some)
        embeddings, valid, _ = model.embed(images)
        contents = [content_of(images[place]) for place in np.flatnonzero(valid)]
        indexed = dataset_images(dataset, some[valid])
        yield list(map(_with_content, indexed, contents)), embeddings[valid]


def stored_records(
    dataset: PreparedDataset, records: np.ndarray, path: Path, model: LocalModel
) -> Rows:
    """Yields embeddings of records that `write_embeddings` has written.

    Raises:
      UserError: if the file lacks a record, or by some of them is of another model or dataset.
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
    compared = np.unique(np.linspace(0, len(records) - 1, _COMPARED).astype(np.int64))
    made, valid, _ = model.embed(dataset.read_images(records[compared]))
    stored = embeddings[places[compared]]
    if made.shape == stored.shape and valid.any():
        cosine = np.median(np.sum(made * _unit(stored), axis=1)[valid])
        if cosine < _SAME_COSINE:
            raise UserError(
                f"{path}: made by another model, or from another dataset than {dataset.directory}: "
                f"its cosine to the model's own embeddings is {cosine:.3f}; embed again"
            )
    for start in range(0, len(records), _IMAGES_AT_ONCE):
        some = slice(start, start + _IMAGES_AT_ONCE)
        contents = map(content_of, dataset.read_images(records[some]))
        images = dataset_images(dataset, records[some])
        yield list(map(_with_content, images, contents)), _unit(embeddings[places[some]])


def bulk_rows(path: Path) -> Rows:
    """Yields what bulk embedding has written into a Parquet file, or a directory of some.

    Raises:
      UserError: if a column is missing, or a value is not what is allowed.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet here")
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
            for name in (*_NAMES, "embedding"):
                if name not in parquet.schema_arrow.names:
                    raise UserError(
                        f"{file}: no column {name!r}; image, item_id, vertical and "
                        "embedding are needed"
                    )
            first = 1
            for batch in parquet.iter_batches(_IMAGES_AT_ONCE):
                yield _bulk_batch(batch, file, first)
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{file}: cannot be read as Parquet: {error}; --bulk takes what tools/embed.py "
                "makes of a manifest, --delta a CSV file"
            ) from error


def _with_content(image: IndexedImage, content: str) -> IndexedImage:
    return dataclasses.replace(image, content=content)


def _bulk_batch(
    batch: pa.RecordBatch, file: Path, first: int
) -> tuple[list[IndexedImage], np.ndarray]:
    """Returns the images and embeddings of some rows, the first of which has number `first`."""
    boxed = _BOX if all(edge in batch.schema.names for edge in _BOX) else ()
    # By the rules of a manifest, so that names agree with its.
    texts = as_texts(file, pa.Table.from_batches([batch]).select([*_NAMES, *boxed]), first)
    rows = zip(*(column.to_pylist() for column in texts.columns))
    images: list[IndexedImage] = []
    embeddings: list[list[float]] = []
    vectors = batch.column("embedding").to_pylist()
    for row, (names, embedding) in enumerate(zip(rows, vectors), first):
        # Bulk embedding leaves out what the model could not embed.
        if not embedding:
            continue
        image, item, vertical = (name.strip() for name in names[:3])
        length = len(embeddings[0] if embeddings else embedding)
        wrong = ""
        if not image or not vertical:
            wrong = f"{'vertical' if image else 'image'!r} is missing; a text is needed"
        elif len(embedding) != length:
            wrong = f"'embedding' has {len(embedding)} numbers; the rows before have {length}"
        elif not all(isinstance(number, (int, float)) for number in embedding):
            wrong = "'embedding' has what is no number"
        if wrong:
            raise UserError(f"{file}: row {row}: column {wrong}")
        key = image_key(image, _box(names[3:], f"{file}: row {row}"))
        images.append(IndexedImage(key, image, item, vertical))
        embeddings.append(embedding)
    return images, _unit(np.array(embeddings, np.float32)) if images else np.empty((0, 0))


def _box(edges: Sequence[str], where: str) -> tuple[float, ...] | None:
    if not edges or "" in edges:
        return None
    try:
        return tuple(map(float, edges))
    except ValueError as error:
        raise UserError(
            f"{where}: columns {', '.join(_BOX)}: {', '.join(edges)}; expected four numbers of "
            "pixels, or none at all"
        ) from error


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings at unit length; zeros stay, and are refused by the index."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths == 0, 1, lengths)
