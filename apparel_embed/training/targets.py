"""Targets: what the specialist of its group says of every training picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.progress import progress_bar
from apparel_embed.training.alignment import alignment_rotation, mean_cosine


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained specialist and the verticals it speaks for."""

    verticals: tuple[str, ...]
    model_directory: Path


def compute_targets(
    dataset: PreparedDataset,
    teachers: Sequence[Teacher],
    *,
    reference: Path | None,
    split: str = "train",
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Embeds every picture of a split with the specialist of its group.

    Args:
      dataset: a prepared dataset.
      teachers: specialists whose verticals do not overlap; pictures of other verticals get no
        target.
      reference: directory of the model onto whose space each specialist's is rotated, or None to
        leave them as they are.
      split: the split to embed.

    Returns:
      Record numbers int64 [n] in rising order, targets float32 [n, dim], and per teacher the
      mean cosine to the reference before and after the rotation.

    Raises:
      UserError: if two teachers claim a vertical, or their embeddings differ in length.
    """
    _check_disjoint(teachers)
    embed_reference = Embedder(load_embedding_model(reference)[0]) if reference else None
    parts, report = [], []
    dims: dict[int, Teacher] = {}
    for teacher in progress_bar(teachers, what="targets", unit="specialists"):
        records = dataset.select(split=split, verticals=teacher.verticals)
        embeddings = _embed(teacher.model_directory, dataset, records)
        dims.setdefault(embeddings.shape[1], teacher)
        entry = {"verticals": list(teacher.verticals), "pictures": len(records)}
        if embed_reference is not None:
            expected = embed_reference.records(dataset, records)
            dims.setdefault(expected.shape[1], Teacher(("the reference",), reference))
            _check_dims(dims)
            entry["cosine_before"] = mean_cosine(embeddings, expected)
            embeddings = embeddings @ alignment_rotation(embeddings, expected)
            entry["cosine_after"] = mean_cosine(embeddings, expected)
        _check_dims(dims)
        parts.append((records, embeddings))
        report.append(entry)
    records = np.concatenate([part[0] for part in parts])
    targets = np.concatenate([part[1] for part in parts])
    order = np.argsort(records)
    return records[order], targets[order], report


def _embed(directory: Path, dataset: PreparedDataset, records: np.ndarray) -> np.ndarray:
    model, _ = load_embedding_model(directory)
    return Embedder(model).records(dataset, records)


def _check_disjoint(teachers: Sequence[Teacher]) -> None:
    owner: dict[str, Path] = {}
    for teacher in teachers:
        for vertical in teacher.verticals:
            if vertical in owner:
                raise UserError(
                    f"vertical {vertical!r} belongs to two specialists, {owner[vertical]} and "
                    f"{teacher.model_directory}; each vertical needs exactly one"
                )
            owner[vertical] = teacher.model_directory


def _check_dims(dims: dict[int, Teacher]) -> None:
    if len(dims) > 1:
        said = "; ".join(f"{', '.join(t.verticals)}: {dim}" for dim, t in dims.items())
        raise UserError(f"embeddings differ in length ({said}); all must have the same")
