"""Checks that models, indexes and datasets belong together."""

from __future__ import annotations

from pathlib import Path

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.search.build import saved_model_fingerprint
from apparel_embed.search.index import VectorIndex, Version
from apparel_embed.serving.exported import read_aligned_to, saved_model_versions


def answering_version(
    index: VectorIndex, saved_model: Path | None = None, *, exactly: bool = False
) -> Version:
    """Returns the version that answers searches, if a model's embeddings are comparable to it.

    Args:
      index: index that contains the version.
      saved_model: directory of the model; None to accept any.
      exactly: see `fits`.

    Raises:
      UserError: if no version answers searches, or it is of another model.
    """
    current = index.current()
    if current is None:
        raise UserError("the index has no complete version; fill it with tools/build_index.py")
    if saved_model and not fits(saved_model, current, exactly=exactly):
        aligned = "" if exactly else ", and not aligned to it"
        raise UserError(
            f"{saved_model}: model {saved_model_fingerprint(saved_model)[:16]} is not the model "
            f"of the index ({current.model[:16]}){aligned}; pass that model with --saved_model, "
            "or index the images with this model"
        )
    return current


def fits(saved_model: Path, version: Version, *, exactly: bool = False) -> bool:
    """Returns whether a model's embeddings are comparable to a version's.

    Args:
      saved_model: directory of the model.
      version: version of an index.
      exactly: whether to require the version's own model instead of one aligned to it.
    """
    is_own = saved_model_fingerprint(saved_model) == version.model
    return is_own or (not exactly and version.model in read_aligned_to(saved_model))


def dataset_of(version: Version, prepared: Path | None) -> PreparedDataset | None:
    """Returns the dataset a version was filled from, or None.

    Raises:
      UserError: if `prepared` is not that dataset.
    """
    if not version.images_of:
        return None
    if prepared is None:
        raise UserError("the index was filled from a prepared dataset; pass it with --prepared")
    dataset = PreparedDataset.open(prepared)
    if dataset.fingerprint != version.images_of:
        raise UserError(
            f"{prepared}: not the dataset that the index was filled from; fill the index again "
            "with tools/build_index.py"
        )
    return dataset


def answering_model(index: VectorIndex, base: Path) -> Path:
    """Returns the SavedModel version in `base` that the index was filled with.

    If there is none, returns the newest one aligned to that model.

    Raises:
      UserError: if no such version exists either.
    """
    answering = answering_version(index)
    for exactly in (True, False):
        for path in reversed(saved_model_versions(base)):
            if fits(path, answering, exactly=exactly):
                logging.info("model %s", path)
                return path
    raise UserError(
        f"{base}: no version of the model of the index ({answering.model[:16]}), and none aligned "
        "to it; index the images with one of them, using tools/build_index.py"
    )
