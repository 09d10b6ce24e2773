"""Fills an index, and tells beforehand what that would change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.files import fingerprint_files
from apparel_embed.progress import progress_bar
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.source import (
    IndexSource,
    Rows,
    bulk_rows,
    dataset_pictures,
    embed_records,
    gallery_records,
    stored_records,
)
from apparel_embed.search.version import IndexSettings, Version
from apparel_embed.serving.local import LocalModel


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


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """What a call of `fill_index` would change.

    Attributes:
      model: fingerprint of the SavedModel.
      pictures: that would be in its version, if the model can embed all.
      new: of them, those that are not there yet; the others would be replaced.
      removed: pictures that are there and would be removed.
      answers: whether this model's version is the one that answers now.
    """

    model: str
    pictures: int
    new: int
    removed: int
    answers: bool


def saved_model_fingerprint(saved_model: Path) -> str:
    """Returns the SHA-256 (hex) over the graph and the weights of a SavedModel.

    Raises:
      UserError: if there is none.
    """
    if not (saved_model / "saved_model.pb").is_file():
        raise UserError(f"{saved_model}: no SavedModel here (saved_model.pb is missing)")
    variables = sorted((saved_model / "variables").glob("*"))
    return fingerprint_files([saved_model / "saved_model.pb", *variables])


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
    version = index.begin(version)
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


def plan_index(
    index: VectorIndex | None, source: IndexSource, *, delete_others: bool = True
) -> BuildPlan:
    """Returns what `fill_index` would change; embeds and writes nothing.

    Args:
      index: that would be filled; None where there is none yet.
      source: what would be indexed.
      delete_others: as for `fill_index`.
    """
    model = saved_model_fingerprint(source.saved_model)
    if source.bulk:
        keys = {picture.key for pictures, _ in bulk_rows(source.bulk) for picture in pictures}
    else:
        dataset = PreparedDataset.open(source.prepared)
        records = gallery_records(dataset, source.splits)
        keys = {picture.key for picture in dataset_pictures(dataset, records)}
    before = set(index.keys(model)) if index and index.version(model) else set()
    current = index.current() if index else None
    return BuildPlan(
        model=model,
        pictures=len(keys) if delete_others else len(keys | before),
        new=len(keys - before),
        removed=len(before - keys) if delete_others else 0,
        answers=current is not None and current.model == model,
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
    model = saved_model_fingerprint(saved_model)
    return Version(model, dim, pictures_of=pictures_of, settings=settings)
