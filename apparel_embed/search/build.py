"""Fills an index from a prepared dataset or from embeddings that were made before."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.files import fingerprint_files
from apparel_embed.progress import progress_bar
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.version import IndexedPicture, IndexSettings, Version
from apparel_embed.serving.local import LocalModel

GALLERY = ("gallery", "both")
_PICTURES_AT_ONCE = 1_000
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


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a call of `build_index` did.

    Attributes:
      version: that was filled.
      upserted: pictures that were written.
      deleted: pictures that were there and are no more.
      invalid: pictures that the model could not embed.
      switched: whether the version answers.
    """

    version: Version
    upserted: int
    deleted: int
    invalid: int
    switched: bool


def model_fingerprint(saved_model: Path) -> str:
    """Returns the SHA-256 (hex) over the graph and the weights of a SavedModel.

    Raises:
      UserError: if there is none.
    """
    if not (saved_model / "saved_model.pb").is_file():
        raise UserError(f"{saved_model}: no SavedModel here (saved_model.pb is missing)")
    variables = sorted((saved_model / "variables").glob("*"))
    return fingerprint_files([saved_model / "saved_model.pb", *variables])


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
      UserError: if a column is missing.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no *.parquet here")
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
            for name in ("image", "item_id", "vertical", "embedding"):
                if name not in parquet.schema_arrow.names:
                    raise UserError(
                        f"{file}: no column {name!r}; image, item_id, vertical and "
                        "embedding are needed"
                    )
            for batch in parquet.iter_batches(_PICTURES_AT_ONCE):
                yield _bulk_batch(batch)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: cannot be read as Parquet: {error}") from error


def build_index(
    index: VectorIndex,
    version: Version,
    rows: Rows,
    *,
    expected: int | None = None,
    delete_others: bool = True,
    switch: bool = True,
) -> BuildSummary:
    """Fills a version with pictures and lets it answer; calling it again changes nothing.

    Killed at any moment it leaves an index that opens: a version that was never complete does not
    answer, and one that answers has old and new pictures, each whole.

    Args:
      index: where to.
      version: model, length, settings and what records count in.
      rows: pictures with embeddings.
      expected: pictures that were to be embedded, to tell how many could not be.
      delete_others: remove pictures of the version that are not among `rows`.
      switch: let the version answer when it is complete.
    """
    index.begin(version)
    before = set(index.keys(version.model))
    keys: set[str] = set()
    verticals: set[str] = set()
    with progress_bar(total=expected, what="index", unit="pictures") as bar:
        for pictures, embeddings in rows:
            if pictures:
                index.upsert(version.model, pictures, embeddings)
            keys.update(picture.key for picture in pictures)
            verticals.update(picture.vertical for picture in pictures)
            bar.update(len(pictures))
    others = sorted(before - keys) if delete_others else []
    index.delete(version.model, others)
    if not delete_others:
        known = index.version(version.model)
        verticals.update(known.verticals if known else ())
    version = index.finish(dataclasses.replace(version, verticals=tuple(sorted(verticals))))
    if switch:
        index.switch(version.model)
    return BuildSummary(
        version, len(keys), len(others), max(0, (expected or len(keys)) - len(keys)), switch
    )


def fill_index(
    index: VectorIndex,
    source: IndexSource,
    settings: IndexSettings,
    *,
    delete_others: bool = True,
    switch: bool = True,
) -> BuildSummary:
    """Fills an index from what `source` names; see `build_index`."""
    model = LocalModel(source.saved_model)
    if source.bulk:
        version = new_version(source.saved_model, model.dim, settings)
        rows, expected = bulk_rows(source.bulk), None
    else:
        dataset = PreparedDataset.open(source.prepared)
        records = gallery_records(dataset, source.splits)
        version = new_version(source.saved_model, model.dim, settings, dataset.fingerprint)
        rows, expected = embed_records(dataset, records, model), len(records)
        if source.embeddings:
            rows = stored_records(dataset, records, source.embeddings)
    return build_index(
        index, version, rows, expected=expected, delete_others=delete_others, switch=switch
    )


def new_version(
    saved_model: Path, dim: int, settings: IndexSettings, pictures_of: str = ""
) -> Version:
    """Returns the version of a SavedModel, to be filled.

    Args:
      saved_model: directory of one version of the model.
      dim: length of its embeddings.
      settings: how vectors are kept.
      pictures_of: fingerprint of what records count in.
    """
    return Version(model_fingerprint(saved_model), dim, pictures_of=pictures_of, settings=settings)


_BOX = ("x_min", "y_min", "x_max", "y_max")


def _bulk_batch(batch: pa.RecordBatch) -> tuple[list[IndexedPicture], np.ndarray]:
    columns = {name: batch.column(name).to_pylist() for name in ("image", "item_id", "vertical")}
    boxes: list[tuple | None] = [None] * batch.num_rows
    if all(edge in batch.schema.names for edge in _BOX):
        edges = zip(*(batch.column(edge).to_pylist() for edge in _BOX))
        boxes = [None if None in box else box for box in edges]
    pictures = [
        IndexedPicture(picture_key(image, box), image, item or "", vertical)
        for image, item, vertical, box in zip(
            columns["image"], columns["item_id"], columns["vertical"], boxes
        )
    ]
    keep = [row for row, value in enumerate(batch.column("embedding").to_pylist()) if value]
    embeddings = np.array([batch.column("embedding")[row].as_py() for row in keep], np.float32)
    return [pictures[row] for row in keep], _unit(embeddings) if keep else embeddings


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings at unit length; zeros stay, and are refused by the index."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths == 0, 1, lengths)
