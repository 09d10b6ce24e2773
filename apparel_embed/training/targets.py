"""Targets: what the specialist of its group says of every picture the student learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.progress import progress_bar
from apparel_embed.training.alignment import alignment_rotation, mean_cosine
from apparel_embed.training.references import FrozenBackbone, reference_embeddings
from apparel_embed.training.separation import separate_groups
from apparel_embed.training.views import embed_views

ALIGN_ON = ("group", "all")
"""Pictures that a specialist's rotation is worked out from: its own group's, or those of all."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained specialist and the verticals it speaks for."""

    verticals: tuple[str, ...]
    model_directory: Path


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """How targets are made.

    Attributes:
      views: of each picture over which its target is averaged; the first is the picture itself.
      augment: how further views are made.
      seed: of further views.
      separation: strength by which groups are kept apart, as in `separate_groups`; 0 is off.
      align_on: the pictures that a specialist's rotation is worked out from, one of `ALIGN_ON`.
      unlabelled: whether pictures of split unlabelled get targets, as those of split train do.
    """

    views: int = 1
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    separation: float = 0.0
    align_on: str = "group"
    unlabelled: bool = True


def compute_targets(
    dataset: PreparedDataset,
    teachers: Sequence[Teacher],
    *,
    reference: Path | FrozenBackbone | None,
    config: TargetsConfig = TargetsConfig(),
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Embeds every picture of split train, and what is unlabelled, with its group's specialist.

    Rotations are those that bring all pictures embedded, labelled or not, closest to the reference.

    Args:
      dataset: a prepared dataset.
      teachers: specialists whose verticals do not overlap; pictures of other verticals get no
        target.
      reference: onto whose space each specialist's is rotated: directory of a model, or the
        frozen backbone; None leaves them as they are. It sees pictures as they are, whatever the
        number of views.
      config: how targets are made, and whether of unlabelled pictures too.

    Returns:
      Record numbers int64 [n] in rising order, targets float32 [n, dim], and per teacher its
      verticals, the number of pictures, how many of them are unlabelled, and the mean cosine to
      the reference before and after the rotation. Where groups are kept apart, targets are longer
      than embeddings by the number of teachers.

    Raises:
      UserError: if two teachers claim a vertical, embeddings differ in length or are not finite,
        or a value of the configuration is out of range.
    """
    _check_disjoint(teachers)
    if config.align_on not in ALIGN_ON:
        raise UserError(f"--align_on={config.align_on}: allowed are {', '.join(ALIGN_ON)}")
    groups, unlabelled = zip(*(_pictures_of(one, dataset, config) for one in teachers))
    records = np.concatenate(groups)
    # Of each group, where its pictures stand among all.
    places = np.split(np.arange(len(records)), np.cumsum([len(group) for group in groups])[:-1])
    on_all = reference is not None and config.align_on == "all"
    anchors = [np.arange(len(records))] * len(teachers) if on_all else places
    bar = progress_bar(teachers, what="targets", unit="specialists")
    seen = [
        _embed(one.model_directory, dataset, records[anchor], config)
        for one, anchor in zip(bar, anchors)
    ]
    _check_parts([("+".join(one.verticals), part) for one, part in zip(teachers, seen)])
    # A group's own pictures, among those that its specialist has seen.
    parts = [part[np.isin(anchor, own)] for part, anchor, own in zip(seen, anchors, places)]
    report = [
        {"verticals": list(one.verticals), "pictures": len(group), "unlabelled": count}
        for one, group, count in zip(teachers, groups, unlabelled)
    ]
    if reference is not None:
        expected = reference_embeddings(reference, dataset, groups, parts[0].shape[1])
        _check_parts([("the specialists", parts[0]), *(("the reference", e) for e in expected)])
        everywhere = np.concatenate(expected)
        for index, entry in enumerate(report):
            rotation = alignment_rotation(seen[index], everywhere[anchors[index]])
            parts[index] = _rotate(parts[index], rotation, expected[index], entry)
    parts = separate_groups(parts, config.separation)
    order = np.argsort(records)
    return records[order], np.concatenate(parts)[order], report


def _pictures_of(
    teacher: Teacher, dataset: PreparedDataset, config: TargetsConfig
) -> tuple[np.ndarray, int]:
    """Returns the records that a teacher embeds, rising, and how many of them are unlabelled."""
    records = dataset.select(split="train", verticals=teacher.verticals)
    if not config.unlabelled:
        return records, 0
    further = dataset.select(split=UNLABELLED, verticals=teacher.verticals)
    return np.sort(np.concatenate([records, further])), len(further)


def _rotate(
    embeddings: np.ndarray, rotation: np.ndarray, expected: np.ndarray, entry: dict
) -> np.ndarray:
    """Returns embeddings rotated, and notes in `entry` how near to those expected it brought."""
    rotated = embeddings @ rotation
    entry["cosine_before"] = mean_cosine(embeddings, expected)
    entry["cosine_after"] = mean_cosine(rotated, expected)
    return rotated


def _embed(
    directory: Path, dataset: PreparedDataset, records: np.ndarray, config: TargetsConfig
) -> np.ndarray:
    model, _ = load_embedding_model(directory)
    return embed_views(
        model,
        dataset,
        records,
        count=config.views,
        augment=config.augment,
        seed=config.seed,
    )


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


def _check_parts(parts: Sequence[tuple[str, np.ndarray]]) -> None:
    """Raises a UserError unless embeddings [n, dim], named, are finite and of one length."""
    for name, embeddings in parts:
        bad = int(np.sum(~np.isfinite(embeddings).all(axis=1)))
        if bad:
            raise UserError(
                f"{name}: {bad} of {len(embeddings)} embeddings are not finite numbers; its "
                "training has failed, or its weights are damaged"
            )
    dims = {embeddings.shape[1]: name for name, embeddings in reversed(parts)}
    if len(dims) > 1:
        said = "; ".join(f"{name}: {dim}" for dim, name in sorted(dims.items()))
        raise UserError(f"embeddings differ in length ({said}); all must have the same")
