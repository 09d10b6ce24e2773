"""Which models, indexes and datasets belong together."""

from __future__ import annotations

from pathlib import Path

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.search.build import saved_model_fingerprint
from apparel_embed.search.index import VectorIndex, Version
from apparel_embed.serving.exported import read_aligned_to, saved_model_versions


def answering_version(
    index: VectorIndex, saved_model: Path | None = None, *, exactly: bool = False
) -> Version:
    """Returns the version that answers, if embeddings of a model may be compared with it.

    Args:
      index: where it is.
      saved_model: directory of the model; None for any.
      exactly: see `fits`.

    Raises:
      UserError: if none answers, or one of another model.
    """
    current = index.current()
    if current is None:
        raise UserError("no version of the index is whole; fill it with tools/build_index.py")
    if saved_model and not fits(saved_model, current, exactly=exactly):
        allowed = "" if exactly else ", and not aligned to that"
        raise UserError(
            f"{saved_model}: is model {saved_model_fingerprint(saved_model)[:16]}, not the model "
            f"whose images the index answers with ({current.model[:16]}){allowed}; name that "
            "with --saved_model, or index this one's"
        )
    return current


def fits(saved_model: Path, version: Version, *, exactly: bool = False) -> bool:
    """Returns whether a model's embeddings may be compared with a version's.

    Args:
      saved_model: its directory.
      version: of an index.
      exactly: whether it is to be the version's own model, and none that is aligned to it.
    """
    is_own = saved_model_fingerprint(saved_model) == version.model
    return is_own or (not exactly and version.model in read_aligned_to(saved_model))


def prepared_as(
    version: Version, prepared: Path | None, max_pixels: int
) -> tuple[PreparedDataset | None, ImageSettings]:
    """Returns the dataset that a version was filled from, or None, and how its images are prepared.

    Raises:
      UserError: if `prepared` is not that dataset.
    """
    if not version.images_of:
        return None, ImageSettings(max_pixels=max_pixels)
    if prepared is None:
        raise UserError("the index was filled from a prepared dataset; name it with --prepared")
    dataset = PreparedDataset.open(prepared)
    if dataset.fingerprint != version.images_of:
        raise UserError(
            f"{prepared}: is not the dataset that the index was filled from; fill it again with "
            "tools/build_index.py"
        )
    made = dataset.info["settings"]
    return dataset, ImageSettings(
        made["max_side"], made["crop_margin"], made["jpeg_quality"], max_pixels
    )


def answering_model(index: VectorIndex, base: Path) -> Path:
    """Returns the version of a SavedModel, of those in `base`, that the index answers with.

    Where there is none, the newest that is aligned to that one.

    Raises:
      UserError: if there is none.
    """
    answering = answering_version(index)
    for exactly in (True, False):
        for path in reversed(saved_model_versions(base)):
            if fits(path, answering, exactly=exactly):
                logging.info("model %s", path)
                return path
    raise UserError(
        f"{base}: has no version of the model whose images the index answers with "
        f"({answering.model[:16]}), and none aligned to it; index one with tools/build_index.py"
    )
