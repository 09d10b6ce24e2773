"""Fills an index, or reports what filling it would change."""

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
from apparel_embed.data.images import ImageSettings
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
from apparel_embed.store.record import STAGE_FILE

_PREPARE = "prepare_dataset.py"


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """The result of `build_index`.

    Attributes:
      version: the version that was filled.
      upserted: number of images written.
      deleted: number of images removed.
      invalid: number of images that the model could not embed.
      unknown: verticals of the version that the model was not trained on.
    """

    version: Version
    upserted: int
    deleted: int
    invalid: int
    unknown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class BuildPlan:
    """The changes that `fill_index` would make.

    Attributes:
      model: fingerprint of the SavedModel.
      images: number of images in its version afterwards, if the model can embed them all.
      new: how many of them are not in that version yet.
      removed: number of indexed images that would be removed.
      answers: whether this model's version currently answers searches.
    """

    model: str
    images: int
    new: int
    removed: int
    answers: bool


def saved_model_fingerprint(saved_model: Path) -> str:
    """Returns the SHA-256 (hex) of the graph and weights of a SavedModel.

    Raises:
      UserError: if the directory contains no SavedModel.
    """
    if not (saved_model / "saved_model.pb").is_file():
        raise UserError(f"{saved_model}: not a SavedModel (saved_model.pb is missing)")
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
    """Adds images to a version and switches searches to it; calling it again changes nothing.

    If killed, it leaves either a version that answers with a mix of old and new images, none of
    them half-written, or one that does not answer searches yet.

    Args:
      index: index to fill.
      version: its model, dim, settings, image_settings and images_of are used.
      rows: images with embeddings; each replaces the indexed image with the same key.
      expected: number of images to embed, to count those that the model could not embed.
      replaced: keys of images to remove unless they are in `rows`. The images of an unfinished
        build are treated the same way.
      switch: whether the version answers searches once it is complete.
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
            "%s the image and box of another row; the index keeps the last of them",
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
    """Fills an index from a source; see `build_index`.

    Bulk embeddings are added. The gallery of a prepared dataset replaces the gallery in the index,
    since every dataset numbers its records from 0; images added in other ways stay.

    Args:
      index: index to fill.
      source: images to index.
      settings: how vectors are stored.
      replace_all: remove every image that is not in `source`.
      switch: whether the version answers searches once it is complete.

    Raises:
      UserError: if more than a tenth of the images would be removed without `replace_all`.
    """
    model = LocalModel(source.saved_model)
    version = Version(saved_model_fingerprint(source.saved_model), model.dim, settings=settings)
    known = index.version(version.model)
    replaced = _replaced(index, source, known, replace_all)
    expected = None
    if source.bulk:
        kept = None if replace_all else known
        settings_of_bulk = _check_bulk(source, kept)
        version = dataclasses.replace(version, image_settings=settings_of_bulk)
        if kept:
            version = dataclasses.replace(version, images_of=kept.images_of)
        rows = bulk_rows(source.bulk)
    else:
        dataset = PreparedDataset.open(source.prepared)
        version = dataclasses.replace(
            version, image_settings=dataset.image_settings, images_of=dataset.fingerprint
        )
        records = gallery_records(dataset, source.splits)
        expected = len(records)
        keys = _keys_of(source)
        _check_removal(replaced - keys, known, replace_all)
        if known and set(index.keys(known)) - replaced - keys:
            _check_settings(dataset.image_settings, known, str(source.prepared), _PREPARE)
        if source.embeddings:
            rows = stored_records(dataset, records, source.embeddings, model)
        else:
            rows = embed_records(dataset, records, model)
    done = build_index(index, version, rows, expected=expected, replaced=replaced, switch=switch)
    return dataclasses.replace(done, unknown=done.version.unknown_verticals(model.verticals))


def plan_index(
    index: VectorIndex | None, source: IndexSource, *, replace_all: bool = False
) -> BuildPlan:
    """Returns what `fill_index` would change, without embedding or writing anything.

    `index` is None if the index does not exist yet.

    Raises:
      UserError: see `fill_index`.
    """
    model = saved_model_fingerprint(source.saved_model)
    keys, before, removed, answers = _keys_of(source), set[str](), set[str](), False
    known = index.version(model) if index else None
    if source.bulk:
        _check_bulk(source, None if replace_all else known)
    if index:
        current = index.current()
        answers = current is not None and current.model == model
        before = set(index.keys(known)) if known else before
        removed = _replaced(index, source, known, replace_all) - keys
        _check_removal(removed, known, replace_all)
        if known and not source.bulk and before - removed - keys:
            settings = PreparedDataset.open(source.prepared).image_settings
            _check_settings(settings, known, str(source.prepared), _PREPARE)
    images = len((before | keys) - removed)
    return BuildPlan(model, images, len(keys - before), len(removed), answers)


def named_keys(
    index: VectorIndex, version: Version, images: Sequence[str], items: Sequence[str]
) -> list[str]:
    """Returns the keys of the images to remove.

    Args:
      index: index that contains them.
      version: version that contains them.
      images: keys, paths or URIs; a path has several keys if it has several boxes.
      items: ids of items whose images are all removed.

    Raises:
      UserError: if an image or item is not in the index.
    """
    keys: set[str] = set()
    requested = [("image", name, index.keys(version, images=[name])) for name in images]
    requested += [("item", name, index.keys(version, items=[name])) for name in items]
    for kind, name, found in requested:
        matching = set(found)
        if not matching:
            raise UserError(f"no {kind} {name[:200]!r} in the index; nothing was removed")
        keys |= matching
    return sorted(keys)


def remove_images(index: VectorIndex, version: Version, keys: Sequence[str]) -> Version:
    """Removes images by key, and returns the changed version.

    Raises:
      UserError: if no image would be left.
    """
    if len(keys) >= version.images:
        raise UserError(f"all {version.images} images would be removed; nothing was removed")
    return index.change(version, [], np.empty((0, version.dim), np.float32), keys)


def _replaced(
    index: VectorIndex, source: IndexSource, known: Version | None, replace_all: bool
) -> set[str]:
    """Returns the keys of the images to remove unless the source contains them."""
    if known is None or (source.bulk and known.complete and not replace_all):
        return set()
    return set(index.keys(known, of_dataset=known.complete and not replace_all))


def _check_bulk(source: IndexSource, known: Version | None) -> ImageSettings:
    """Returns how the images of bulk embeddings were prepared.

    Args:
      source: source with bulk embeddings.
      known: version that they are added to; None if they replace everything.

    Raises:
      UserError: if they are of another model, or of other settings than those of `known`.
    """
    bulk = source.bulk
    assert bulk is not None
    directory = bulk if bulk.is_dir() else bulk.parent
    if not (directory / SUMMARY_FILE).is_file():
        logging.warning(
            "%s: there is no %s, so nothing shows that these embeddings are of the model and that "
            "their images were prepared as the index expects",
            *(bulk, SUMMARY_FILE),
        )
        return known.image_settings if known else ImageSettings()
    made = read_json(directory / SUMMARY_FILE)
    if made["model"].partition("/")[0] not in map(
        model_fingerprint, _same_models(source.saved_model)
    ):
        raise UserError(
            f"--bulk={bulk}: its {SUMMARY_FILE} names another model than {source.saved_model}; "
            "distances between their embeddings are meaningless. Run tools/embed.py "
            f"--model={source.saved_model}"
        )
    # Embeddings of a prepared dataset have none, and lack the columns that an index needs.
    settings = ImageSettings(**(made["settings"] or {}))
    if known:
        _check_settings(settings, known, f"--bulk={bulk}", "embed.py")
    return settings


def _check_settings(settings: ImageSettings, known: Version, where: str, tool: str) -> None:
    """Raises a UserError if images were prepared in another way than those of an index."""
    for name in ("max_side", "crop_margin", "jpeg_quality"):
        theirs, ours = getattr(settings, name), getattr(known.image_settings, name)
        if theirs != ours:
            raise UserError(
                f"{where}: its images were prepared with --{name}={theirs}, those of the index "
                f"with {ours}; run tools/{tool} with --{name}={ours}, or replace all images of "
                "the index with --replace_all"
            )


def _same_models(saved_model: Path) -> list[str]:
    """Returns a SavedModel and the stage that it was exported from, if that still exists."""
    record, student = saved_model / STAGE_FILE, saved_model.parent.parent / STUDENT
    found = [str(saved_model)]
    if record.is_file() and (student / STAGE_FILE).is_file():
        made_of = read_json(record)["inputs"].get(STUDENT)
        if made_of and made_of == read_json(student / STAGE_FILE).get("fingerprint"):
            found.append(str(student))
    return found


def _keys_of(source: IndexSource) -> set[str]:
    if source.bulk:
        return {image.key for images, _ in bulk_rows(source.bulk) for image in images}
    dataset = PreparedDataset.open(source.prepared)
    images = dataset_images(dataset, gallery_records(dataset, source.splits))
    return {image.key for image in images}


def _check_removal(removed: Collection[str], known: Version | None, replace_all: bool) -> None:
    # An incomplete version has no image count, and answers no searches.
    if replace_all or not known or not known.complete:
        return
    if len(removed) > known.images / 10:
        raise UserError(
            f"{len(removed)} of {known.images} images of the index would be removed; more than "
            "a tenth is removed only with --replace_all. Nothing was changed"
        )
