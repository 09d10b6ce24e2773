"""Targets: the embedding of each of the student's images from the teacher of its vertical."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.distillation.spaces import (
    FrozenBackbone,
    alignment_rotation,
    joint_embeddings,
    mean_cosine,
    reference_embeddings,
)
from apparel_embed.distillation.teacher_choice import Choice, choose_kind, choose_teacher
from apparel_embed.evaluation.protocol import (
    EvaluationSet,
    Outcomes,
    answered_queries,
    query_outcomes,
)
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model

JOINT = "joint"
# Weight of an earlier student in the targets of its verticals, chosen on split val of generated
# garments: new queries find as much as old ones in the old gallery, and the mean teaches better.
OLD_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained model and its verticals.

    Attributes:
      name: name in reports.
      verticals: the verticals it was trained on.
      model_directory: directory of the model.
    """

    name: str
    verticals: tuple[str, ...]
    model_directory: Path


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """The embeddings that the student learns.

    Attributes:
      records: int64 [n] record numbers of splits train and unlabelled, ascending.
      embeddings: float32 [n, dim], their targets.
      held_out_records: int64 [m] record numbers of split val, ascending.
      held_out: float32 [m, dim], the same teachers' embeddings of these; not used for training.
      teachers: for each teacher its name, verticals, number of training images, how many of them
        are unlabelled, and the mean cosine to the reference before and after the rotation.
      choices: the candidate that teaches each vertical, and the evidence.
    """

    records: np.ndarray
    embeddings: np.ndarray
    held_out_records: np.ndarray
    held_out: np.ndarray
    teachers: tuple[Mapping[str, Any], ...]
    choices: tuple[Choice, ...]


def compute_targets(
    dataset: PreparedDataset,
    teachers: Sequence[Teacher],
    *,
    reference: Path | FrozenBackbone | None,
    config: TargetsConfig = TargetsConfig(),
    old_verticals: Sequence[str] = (),
) -> Targets:
    """Embeds images of splits train, unlabelled and val with the teachers of their verticals.

    Teachers of the same verticals, such as those trained with other seeds, are joined into one
    candidate. If the teachers of a vertical have different sets of verticals, their joint is
    another candidate; see `choose_kind` and `choose_teacher`. Each space is rotated onto the
    reference's, fitted on the images that the student learns from.

    Args:
      dataset: a prepared dataset.
      teachers: trained models with unique names; images of other verticals get no target.
      reference: as in `reference_embeddings`; None leaves spaces as they are.
      config: the settings of targets.
      old_verticals: verticals for which the reference, an earlier student, is also a teacher: a
        rotation alone leaves the spaces too far apart for a search across them.

    Raises:
      UserError: if embeddings differ in dimensions or are not finite.
    """
    images = _Images.of(dataset, teachers, config)
    expected = None
    if reference is not None:
        expected = reference_embeddings(reference, dataset, images.records, config.dim)
        _check("the reference", expected, config.dim)
    spaces: dict[str, np.ndarray] = {}
    report = []
    for teacher in progress_bar(teachers, what="targets", unit="teachers"):
        known = np.isin(images.verticals, teacher.verticals)
        model, _ = load_embedding_model(teacher.model_directory)
        embeddings = Embedder(model).records(dataset, images.records[known])
        _check(teacher.name, embeddings, config.dim)
        cosines: dict[str, float] = {}
        if expected is not None:
            embeddings, cosines = _rotated(embeddings, expected[known], images.is_learnt[known])
        spaces[teacher.name] = np.zeros([len(known), config.dim], np.float32)
        spaces[teacher.name][known] = embeddings
        report.append({**images.counts(known, teacher), **cosines})
    kinds, candidates = [], {}
    for alike in _alike(teachers):
        kinds.append(_one_of(alike))
        known = np.isin(images.verticals, alike[0].verticals)
        parts = [spaces[teacher.name] for teacher in alike]
        candidates[kinds[-1].name] = _joined(parts, known, images, expected, config.dim)
    parts = _parts(images, kinds, candidates)
    if len(parts) > 1:
        everywhere = np.ones_like(images.is_learnt)
        candidates[JOINT] = _joined(parts, everywhere, images, expected, config.dim)
    choices = _choices(candidates, kinds, images, config.seed)
    chosen = np.zeros([len(images.records), config.dim], np.float32)
    for choice in choices:
        mine = images.verticals == choice.vertical
        chosen[mine] = candidates[choice.chosen][mine]
    if expected is not None:
        mine = np.isin(images.verticals, old_verticals)
        mixed = (1 - OLD_SHARE) * chosen[mine] + OLD_SHARE * expected[mine]
        # The bound covers opposite vectors, whose mean is zero.
        lengths = np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6)
        chosen[mine] = mixed / lengths
    records, is_learnt = images.records, images.is_learnt
    learnt, rest = ((records[of], chosen[of]) for of in (is_learnt, ~is_learnt))
    return Targets(*learnt, *rest, tuple(report), tuple(choices))


@dataclasses.dataclass(frozen=True, eq=False)
class _Images:
    """The images that teachers embed: those to learn from, then those held out."""

    records: np.ndarray
    verticals: np.ndarray
    is_learnt: np.ndarray
    is_unlabelled: np.ndarray
    held_out: EvaluationSet

    @classmethod
    def of(
        cls, dataset: PreparedDataset, teachers: Sequence[Teacher], config: TargetsConfig
    ) -> _Images:
        verticals = sorted({name for teacher in teachers for name in teacher.verticals})
        train = dataset.select(split="train", verticals=verticals)
        further = dataset.select(split=UNLABELLED, verticals=verticals)
        learnt = np.sort(np.concatenate([train, further])) if config.unlabelled else train
        held_out = evaluation_set(dataset, "val", verticals)
        records = np.concatenate([learnt, held_out.records])
        return cls(
            records,
            dataset.column("vertical")[records],
            np.arange(len(records)) < len(learnt),
            np.isin(records, further),
            held_out,
        )

    def counts(self, known: np.ndarray, teacher: Teacher) -> dict[str, Any]:
        """Returns a teacher's name, verticals and numbers of images for the report."""
        return {
            "name": teacher.name,
            "verticals": list(teacher.verticals),
            "images": int((known & self.is_learnt).sum()),
            "unlabelled": int((known & self.is_unlabelled).sum()),
        }


def _rotated(
    embeddings: np.ndarray, expected: np.ndarray, learnt: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Returns embeddings rotated onto the expected ones, and the cosines before and after."""
    rotated = embeddings @ alignment_rotation(embeddings[learnt], expected[learnt])
    return rotated, {
        "cosine_before": mean_cosine(embeddings[learnt], expected[learnt]),
        "cosine_after": mean_cosine(rotated[learnt], expected[learnt]),
    }


def _alike(teachers: Sequence[Teacher]) -> list[list[Teacher]]:
    """Returns teachers grouped by their sets of verticals, in order of first occurrence."""
    found: dict[frozenset[str], list[Teacher]] = {}
    for teacher in teachers:
        found.setdefault(frozenset(teacher.verticals), []).append(teacher)
    return list(found.values())


def _one_of(alike: Sequence[Teacher]) -> Teacher:
    """Returns a teacher that represents several of the same verticals."""
    name = f"{alike[0].name} x {len(alike)}" if len(alike) > 1 else alike[0].name
    return dataclasses.replace(alike[0], name=name)


def _joined(
    parts: Sequence[np.ndarray],
    known: np.ndarray,
    images: _Images,
    expected: np.ndarray | None,
    dim: int,
) -> np.ndarray:
    """Returns the joint of spaces on the images they cover, rotated, and zeros elsewhere."""
    if len(parts) == 1:
        return parts[0]
    learnt = images.is_learnt[known]
    own = joint_embeddings([part[known] for part in parts], learnt, dim)
    if expected is not None:
        own, _ = _rotated(own, expected[known], learnt)
    joint = np.zeros([len(known), dim], np.float32)
    joint[known] = own
    return joint


def _parts(
    images: _Images, teachers: Sequence[Teacher], spaces: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns the parts of the joint: float32 [n, dim] each.

    The first part comes from the teachers with the most verticals, the last from those with the
    fewest. A vertical with fewer teachers than another repeats its most specialised one.
    """
    known = {
        vertical: sorted(
            (one for one in teachers if vertical in one.verticals),
            key=lambda one: (-len(one.verticals), one.name),
        )
        for vertical in np.unique(images.verticals)
    }
    parts = []
    for number in range(max(map(len, known.values()))):
        part = np.zeros_like(spaces[teachers[0].name])
        for vertical, own in known.items():
            mine = images.verticals == vertical
            part[mine] = spaces[own[min(number, len(own) - 1)].name][mine]
        parts.append(part)
    return parts


def _choices(
    candidates: Mapping[str, np.ndarray],
    teachers: Sequence[Teacher],
    images: _Images,
    seed: int,
) -> list[Choice]:
    """Returns each vertical's choice among the joint and its teachers."""
    kinds: dict[str, dict[str, str]] = {JOINT: {}, "special": {}, "general": {}}
    outcomes: dict[str, dict[str, Outcomes]] = {}
    for vertical in np.unique(images.verticals).astype(str):
        own = [one for one in teachers if vertical in one.verticals]
        own.sort(key=lambda one: (len(one.verticals), one.name))
        joint = JOINT if JOINT in candidates else own[0].name
        kinds[JOINT][vertical] = joint
        kinds["special"][vertical] = own[0].name
        kinds["general"][vertical] = own[-1].name
        mine = images.held_out.verticals == vertical
        queries = images.held_out.only(mine)
        if answered_queries(queries):
            outcomes[vertical] = {
                name: query_outcomes(candidates[name][~images.is_learnt][mine], queries)
                for name in dict.fromkeys([joint, *(one.name for one in own)])
            }
    kind = JOINT
    if outcomes:
        found = {
            one: {vertical: outcomes[vertical][names[vertical]] for vertical in outcomes}
            for one, names in kinds.items()
        }
        kind = choose_kind(found, seed)
    return [
        choose_teacher(vertical, {first: outcomes[vertical][first], **outcomes[vertical]}, seed)
        if vertical in outcomes
        else Choice(vertical, first)
        for vertical, first in kinds[kind].items()
    ]


def _check(name: str, embeddings: np.ndarray, dim: int) -> None:
    bad = int(np.sum(~np.isfinite(embeddings).all(axis=1)))
    if bad:
        raise UserError(
            f"{name}: {bad} of {len(embeddings)} embeddings are not finite: its training has "
            "failed or its weights are damaged; train it again"
        )
    if embeddings.shape[1] != dim:
        raise UserError(
            f"{name}: its embeddings have {embeddings.shape[1]} dimensions; expected {dim}, as for "
            "the student"
        )
