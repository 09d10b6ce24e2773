"""Fills an index, and reports beforehand what that would change."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_files, read_json
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.text import counted
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.bulk_shard import SUMMARY_FILE
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, VectorIndex, Version
from apparel_embed.search.source import (
    Rows,
    bulk_rows,
    dataset_images,
    embed_records,
    gallery_records,
    stored_records,
)
from apparel_embed.serving.local import LocalModel, model_fingerprint
from apparel_embed.store.names import STUDENT


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a call of `build_index` did.

    Attributes:
      version: that was filled.
      upserted: images that were written.
      deleted: images that were there and are no more.
      invalid: images that the model could not embed.
      unknown: verticals of the version that the model has never seen.
    """

    version: Version
    upserted: int
    deleted: int
    invalid: int
    unknown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """What a call of `fill_index` would change.

    Attributes:
      model: fingerprint of the SavedModel.
      images: that would be in its version, if the model can embed all.
      new: of them, those that are not there yet.
      removed: images that are there and would be removed.
      answers: whether this model's version is the one that answers now.
    """

    model: str
    images: int
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
    replaced: Collection[str] = (),
    switch: bool = True,
) -> BuildSummary:
    """Adds images to a version and lets it answer; calling it again changes nothing.

    Killed at any moment it leaves a version that answers with old and new images, each whole, or
    one that does not answer yet.

    Args:
      index: where to.
      version: model, length, settings and what records count in.
      rows: images with embeddings; each replaces the one that has its key.
      expected: images that were to be embedded, to count those that could not be.
      replaced: keys of images that are removed unless they are among `rows`, as are those that a
        build left which never ended.
      switch: let the version answer when it is complete.
    """
    known = index.version(version.model)
    if known and not known.complete:
        replaced = set(index.keys(known))
    version = index.begin(version)
    keys: set[str] = set()
    count = 0
    if expected:
        logging.info("indexing %s", counted(expected, "image"))
    with progress_bar(total=expected, what="index", unit="images") as bar:
        for images, embeddings in rows:
            if images:
                index.upsert(version, images, embeddings)
            keys.update(image.key for image in images)
            count += len(images)
            bar.update(len(images))
    if count > len(keys):
        logging.warning(
            "%s the image and box of another row; the index keeps the last such row",
            counted(count - len(keys), "row has", "rows have"),
        )
    others = sorted(set(replaced) - keys)
    index.delete(version, others)
    version = index.finish(version)
    if switch:
        index.switch(version)
    invalid = max(0, (expected or count) - count)
    return BuildSummary(version, len(keys), len(others), invalid)


def fill_index(
    index: VectorIndex,
    source: IndexSource,
    settings: IndexSettings,
    *,
    replace_all: bool = False,
    switch: bool = True,
) -> BuildSummary:
    """Fills an index from what `source` names; see `build_index`.

    Embeddings from elsewhere are added. A prepared dataset's gallery takes the place of the gallery
    that is there, since each numbers its records from 0; what was added otherwise stays.

    Args:
      index: where to.
      source: what to index.
      settings: how vectors are kept.
      replace_all: remove all that is not in `source`.
      switch: let the version answer when it is complete.

    Raises:
      UserError: if more than a tenth of the images would be removed without `replace_all`.
    """
    model = LocalModel(source.saved_model)
    version = Version(saved_model_fingerprint(source.saved_model), model.dim, settings=settings)
    known = index.version(version.model)
    replaced = _replaced(index, source, known, replace_all)
    expected = None
    if source.bulk:
        _tell_of_another_model(source.bulk, source.saved_model)
        if known and not replace_all:
            version = dataclasses.replace(version, images_of=known.images_of)
        rows = bulk_rows(source.bulk)
    else:
        dataset = PreparedDataset.open(source.prepared)
        version = dataclasses.replace(version, images_of=dataset.fingerprint)
        records = gallery_records(dataset, source.splits)
        expected = len(records)
        _check_removal(replaced - _keys_of(source), known, replace_all)
        if source.embeddings:
            rows = stored_records(dataset, records, source.embeddings, model)
        else:
            rows = embed_records(dataset, records, model)
    done = build_index(index, version, rows, expected=expected, replaced=replaced, switch=switch)
    return dataclasses.replace(done, unknown=done.version.unknown_verticals(model.verticals))


def plan_index(
    index: VectorIndex | None, source: IndexSource, *, replace_all: bool = False
) -> BuildPlan:
    """Returns what `fill_index` would change, of no index (None) too; embeds and writes nothing.

    Raises:
      UserError: as `fill_index`.
    """
    model = saved_model_fingerprint(source.saved_model)
    keys, before, removed, answers = _keys_of(source), set[str](), set[str](), False
    if index:
        known, current = index.version(model), index.current()
        answers = current is not None and current.model == model
        before = set(index.keys(known)) if known else before
        removed = _replaced(index, source, known, replace_all) - keys
        _check_removal(removed, known, replace_all)
    images = len((before | keys) - removed)
    return BuildPlan(model, images, len(keys - before), len(removed), answers)


def named_keys(
    index: VectorIndex, version: Version, images: Sequence[str], items: Sequence[str]
) -> list[str]:
    """Returns the keys of images that are to be removed.

    Args:
      index: where they are.
      version: of which model.
      images: each named by its key, path or URI; one path has several keys if it has boxes.
      items: all images of these.

    Raises:
      UserError: if one is not there.
    """
    keys: set[str] = set()
    asked = [("image", one, index.keys(version, images=[one])) for one in images]
    asked += [("item", one, index.keys(version, items=[one])) for one in items]
    for what, name, found in asked:
        those = set(found)
        if not those:
            raise UserError(f"no {what} {name[:200]!r} in the index; nothing was removed")
        keys |= those
    return sorted(keys)


def remove_images(index: VectorIndex, version: Version, keys: Sequence[str]) -> Version:
    """Removes the images of some keys, and returns the version as it is then.

    Raises:
      UserError: if none would be left.
    """
    if len(keys) >= version.images:
        raise UserError(f"all {version.images} images would be removed; nothing was removed")
    return index.change(version, [], np.empty((0, version.dim), np.float32), keys)


def _replaced(
    index: VectorIndex, source: IndexSource, known: Version | None, replace_all: bool
) -> set[str]:
    """Returns the keys of images that do not outlast those of the source."""
    if known is None or (source.bulk and known.complete and not replace_all):
        return set()
    return set(index.keys(known, of_dataset=known.complete and not replace_all))


def _tell_of_another_model(bulk: Path, saved_model: Path) -> None:
    """Warns if bulk embeddings were made by another model."""
    summary, student = bulk / SUMMARY_FILE, saved_model.parent.parent / STUDENT
    if summary.is_file():
        # A SavedModel's weights are those of the stage that it was exported from.
        alike = [saved_model, *([student] if (student / "model").is_dir() else [])]
        by = read_json(summary)["model"].partition("/")[0]
        if by not in [model_fingerprint(str(one)) for one in alike]:
            logging.warning(
                "%s: its %s names another model than %s; unless both have the same weights, "
                "distances between their embeddings mean nothing",
                *(bulk, SUMMARY_FILE, saved_model),
            )


def _keys_of(source: IndexSource) -> set[str]:
    if source.bulk:
        return {image.key for images, _ in bulk_rows(source.bulk) for image in images}
    dataset = PreparedDataset.open(source.prepared)
    images = dataset_images(dataset, gallery_records(dataset, source.splits))
    return {image.key for image in images}


def _check_removal(removed: Collection[str], known: Version | None, replace_all: bool) -> None:
    # A version that was never whole has counted nothing, and answers nobody.
    if replace_all or not known or not known.complete:
        return
    if len(removed) > known.images / 10:
        raise UserError(
            f"{len(removed)} of {known.images} images of the index would be removed; more than "
            "a tenth is removed only with --replace_all. Nothing was changed"
        )
