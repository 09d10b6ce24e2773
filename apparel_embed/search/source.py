"""Sources to fill an index from: the gallery of a prepared dataset, or stored embeddings."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.text_tables import as_texts
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.search.index import IndexedImage
from apparel_embed.serving.exported import GARMENT_BOX

if TYPE_CHECKING:
    from apparel_embed.serving.local import LocalModel

GALLERY = ("gallery", "both")
_IMAGES_AT_ONCE = 1_000
# Number of stored embeddings compared with the model's; reduced precision differs by less.
_COMPARED, SAME_COSINE = 16, 0.98
_BOX = ("x_min", "y_min", "x_max", "y_max")
_NAMES = ("image", "item_id", "vertical")
_PARTS = ("role", "split")
# Images and their embeddings, float32 [n, dim].
Rows = Iterator[tuple[list[IndexedImage], np.ndarray]]


def image_key(image: str, box: tuple[float, ...] | None = None) -> str:
    """Returns the key of an image in the index, from its path or URI in the manifest.

    A photograph with several garments has one key per box (x_min, y_min, x_max, y_max).
    """
    text = image if box is None else f"{image}\n{','.join(f'{edge:g}' for edge in box)}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def content_of(jpeg: bytes) -> str:
    """Returns the hash of a prepared image; see `IndexedImage.content`."""
    return hashlib.sha256(jpeg).hexdigest()[:32]


def dataset_images(dataset: PreparedDataset, records: np.ndarray) -> list[IndexedImage]:
    """Returns the images to index for some records."""
    columns = (dataset.column(name)[records] for name in (*_NAMES, *_BOX))
    images = []
    for record, image, item, vertical, *edges in zip(records, *columns):
        box = None if np.isnan(np.array(edges, float)).any() else tuple(map(float, edges))
        images.append(IndexedImage(image_key(image, box), image, item, vertical, int(record)))
    return images


def gallery_records(dataset: PreparedDataset, splits: tuple[str, ...] = ()) -> np.ndarray:
    """Returns the gallery records of some splits, by default all labelled: int64, ascending.

    Raises:
      UserError: if there are none.
    """
    splits = splits or ("train", "val", "test")
    chosen = [dataset.select(split=split, roles=GALLERY) for split in splits]
    records = np.unique(np.concatenate(chosen))
    if not len(records):
        raise UserError(f"{dataset.directory}: no record with role gallery or both in these splits")
    return records


def embed_records(dataset: PreparedDataset, records: np.ndarray, model: LocalModel) -> Rows:
    """Yields records embedded with a SavedModel, without those that it could not embed."""
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
    """Yields records with embeddings from a file written by `write_embeddings`.

    Raises:
      UserError: if the file lacks a record, or a sample shows another model or dataset.
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
        if cosine < SAME_COSINE:
            raise UserError(
                f"{path}: embeddings of another model, or of another dataset than "
                f"{dataset.directory}: their cosine similarity to the model's is {cosine:.3f}, "
                f"expected at least {SAME_COSINE}; embed the images again"
            )
    for start in range(0, len(records), _IMAGES_AT_ONCE):
        some = slice(start, start + _IMAGES_AT_ONCE)
        contents = map(content_of, dataset.read_images(records[some]))
        images = dataset_images(dataset, records[some])
        yield list(map(_with_content, images, contents)), _unit(embeddings[places[some]])


def is_indexed(role: str, split: str) -> bool:
    """Returns whether an image with this role and split, possibly empty, belongs in an index."""
    return role != "query" and split != UNLABELLED


def bulk_rows(path: Path) -> Rows:
    """Yields bulk embeddings from a Parquet file, or from a directory of Parquet files.

    Images that are only queries, and those of split unlabelled, are left out.

    Raises:
      UserError: if a column is missing, or a value is invalid, or the rows are garments that a
        detector found.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet files found")
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
            for name in (*_NAMES, "embedding"):
                if name not in parquet.schema_arrow.names:
                    raise UserError(
                        f"{file}: no column {name!r}; image, item_id, vertical and "
                        "embedding are required"
                    )
            if GARMENT_BOX in parquet.schema_arrow.names:
                raise UserError(
                    f"{file}: contains the garments that a detector found; --bulk expects one "
                    "embedding per row of a manifest: run tools/embed.py without --detect"
                )
            first = 1
            for batch in parquet.iter_batches(_IMAGES_AT_ONCE):
                yield _bulk_batch(batch, file, first)
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{file}: cannot be read as Parquet: {error}; --bulk takes the output of "
                "tools/embed.py for a manifest, --delta a CSV file"
            ) from error


def _with_content(image: IndexedImage, content: str) -> IndexedImage:
    return dataclasses.replace(image, content=content)


def _bulk_batch(
    batch: pa.RecordBatch, file: Path, first: int
) -> tuple[list[IndexedImage], np.ndarray]:
    """Returns the images and embeddings of some rows, numbered from `first`."""
    boxed = _BOX if all(edge in batch.schema.names for edge in _BOX) else ()
    parts = [name for name in _PARTS if name in batch.schema.names]
    # Follow the rules for manifests, so that names match those in the manifest.
    texts = as_texts(file, pa.Table.from_batches([batch]).select([*_NAMES, *boxed, *parts]), first)
    missing = [""] * batch.num_rows
    of_parts = (texts[name].to_pylist() if name in parts else missing for name in _PARTS)
    kept = [is_indexed(*one) for one in zip(*of_parts)]
    if not all(kept):
        logging.info(
            "%s: left out %s of role query or split unlabelled, from row %d on",
            *(file, counted(kept.count(False), "row"), first + kept.index(False)),
        )
    texts = texts.select([*_NAMES, *boxed])
    rows = zip(*(column.to_pylist() for column in texts.columns))
    images: list[IndexedImage] = []
    embeddings: list[list[float]] = []
    vectors = batch.column("embedding").to_pylist()
    for row, (names, embedding, is_kept) in enumerate(zip(rows, vectors, kept), first):
        # Bulk embedding leaves out what the model could not embed.
        if not embedding or not is_kept:
            continue
        image, item, vertical = names[0], names[1].strip(), names[2].strip()
        length = len(embeddings[0] if embeddings else embedding)
        wrong = ""
        if not image.strip() or not vertical:
            wrong = f"{'vertical' if image.strip() else 'image'!r} is empty; expected a text"
        elif len(embedding) != length:
            wrong = f"'embedding' has {len(embedding)} numbers; expected {length}, as before"
        elif not all(isinstance(number, (int, float)) for number in embedding):
            wrong = "'embedding' contains values that are not numbers"
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
            f"{where}: columns {', '.join(_BOX)}: got {', '.join(edges)}; expected four numbers "
            "in pixels, or four empty values"
        ) from error


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings scaled to unit length; zeros stay zero, and the index refuses them."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths == 0, 1, lengths)
