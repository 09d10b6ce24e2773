"""The stage of the student's targets: the teachers' embeddings of every image, in one space."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import flag_names
from apparel_embed.common.text import counted
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.distillation.spaces import FrozenBackbone
from apparel_embed.distillation.targets import OLD_SHARE, Teacher, compute_targets
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.models.config import ModelConfig
from apparel_embed.runs.config import REFERENCES
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.growth import OldImages, known_verticals
from apparel_embed.runs.stages.specialist import grouped_specialists
from apparel_embed.runs.stages.start import old_student, weights_input
from apparel_embed.store.names import (
    COMBINED_START,
    OLD_STUDENT,
    STUDENT,
    TARGETS,
    combined_start_name,
    specialist_name,
)
from apparel_embed.store.record import Stage, fingerprints

TARGETS_FILE = "targets.parquet"
HELD_OUT_FILE = "held_out.parquet"


def student_teachers(
    run: Run, grouped: Sequence[Stage], combined: int | None = None
) -> list[Stage]:
    """Returns the finished stages of all of the student's teachers.

    Args:
      run: the run.
      grouped: specialists that together cover every vertical.
      combined: number of combined models to use, as an earlier call may have trained more; None for
        all.

    Returns:
      The given specialists, the specialist of each single vertical, the combined models that
      others start from, and the specialists that start from additional ones, each once.
    """
    groups = [stage.flags["verticals"] for stage in grouped]
    groups += [[vertical] for vertical in run.dataset.verticals]
    names: list[str] = []
    numbers: Iterable[int] = itertools.count() if combined is None else range(combined)
    for number in numbers:
        if number and not run.find(combined_start_name(number)):
            break
        names += [specialist_name(group, number) for group in groups]
        names.append(combined_start_name(number))
    found = [stage for stage in (*grouped, *map(run.find, names)) if stage]
    return list({stage.name: stage for stage in found}.values())


def find_reference(
    align_to: str, run: Run, teachers: Sequence[Stage], *, init_weights: str, seed: int
) -> Stage | FrozenBackbone | None:
    """Returns the reference that `align_to` names, for `targets_stage`.

    Args:
      align_to: one of `REFERENCES`, or the directory of an earlier run, for its student.
      run: the run.
      teachers: finished stages of the student's teachers.
      init_weights: initial weights of the frozen backbone, as in `load_initial_weights`; its
        architecture is that of the first teacher.
      seed: seed of the frozen backbone's weights, if they are random.

    Raises:
      UserError: the name is unknown, or its stage is missing.
    """
    if align_to not in REFERENCES:
        earlier = Path(align_to)
        if not earlier.is_dir():
            raise UserError(
                f"--align_to={align_to}: expected one of {', '.join(REFERENCES)} or the directory "
                "of a finished run"
            )
        dim = teachers[0].flags["model"]["embedding_dim"]
        return old_student("align_to", earlier, run.directory, dim)
    if align_to == "none":
        return None
    if align_to == "frozen":
        return FrozenBackbone(ModelConfig(**teachers[0].flags["model"]), init_weights, seed)
    combined = run.find(COMBINED_START)
    if combined is None:
        raise UserError(
            f"--align_to={align_to} requires the stage {run.directory / COMBINED_START}, which is "
            "missing or not finished"
        )
    return combined


def targets_stage(
    run: Run,
    teachers: Sequence[Stage],
    reference: Stage | FrozenBackbone | None,
    config: TargetsConfig = TargetsConfig(),
    name: str = TARGETS,
    old: OldImages | None = None,
) -> Stage:
    """Exports the student's targets to `<stage>/targets.parquet`.

    The teachers' embeddings of split val are written to `<stage>/held_out.parquet`, for validation
    only.

    Args:
      run: the run.
      teachers: finished stages of triplet models; a vertical may have several.
      reference: the model onto whose space the teachers' are rotated: its stage, the frozen
        backbone, or None.
      config: how targets are computed.
      name: name of the stage.
      old: the images of an earlier run, whose targets come from that run or its student.
    """
    dataset = run.dataset
    known = [Teacher(s.name, tuple(s.flags["verticals"]), s.directory / "model") for s in teachers]
    flags, inputs = _made_of_reference(reference)
    aligned = reference if isinstance(reference, Stage) and reference.name == STUDENT else None
    old_verticals = known_verticals(aligned) if aligned else ()
    if old:
        flags, inputs = {**flags, **old.flags}, {**inputs, **old.inputs}
    unlabelled = dataset.select(split=UNLABELLED)

    def work(directory: Path) -> dict[str, Any]:
        onto = reference.directory / "model" if isinstance(reference, Stage) else reference
        found = compute_targets(
            dataset, known, reference=onto, config=config, old_verticals=old_verticals
        )
        if old:
            files = TARGETS_FILE, HELD_OUT_FILE
            found = old.before(found, dataset, files, unlabelled=config.unlabelled)
        write_embeddings(directory / TARGETS_FILE, found.records, found.embeddings)
        write_embeddings(directory / HELD_OUT_FILE, found.held_out_records, found.held_out)
        return {
            "images": len(found.records),
            "unlabelled": int(np.isin(found.records, unlabelled).sum()),
            "dim": found.embeddings.shape[1],
            "teachers": list(found.teachers),
            "choices": [dataclasses.asdict(choice) for choice in found.choices],
            **({OLD_STUDENT: str(aligned.directory.resolve())} if aligned else {}),
        }

    # The flag has no effect if there are no unlabelled images.
    uses_unlabelled = config.unlabelled and len(unlabelled) > 0
    return run.make(
        name,
        work,
        flags={**flags, **dataclasses.asdict(config), "unlabelled": uses_unlabelled},
        inputs={**fingerprints(*teachers), **inputs},
        flag_names=flag_names(config),
        size=counted(run.learnt(unlabelled=uses_unlabelled), "image"),
    )


def _made_of_reference(
    reference: Stage | FrozenBackbone | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the flags and input fingerprints that record a reference."""
    if reference is None:
        return {"align_to": "none"}, {}
    if isinstance(reference, Stage) and reference.name == STUDENT:
        # The student of an earlier run; this run's student is only trained on these targets later.
        old = {"align_to": OLD_STUDENT, "old_share": OLD_SHARE}
        return old, {OLD_STUDENT: reference.fingerprint}
    if isinstance(reference, Stage):
        return {"align_to": reference.name}, fingerprints(reference)
    flags = dataclasses.asdict(reference)
    # By content, not by path.
    inputs = weights_input(flags.pop("init_weights"))
    return {"align_to": "frozen", "frozen": flags}, inputs


def make(pipeline: PipelineRun) -> list[Stage]:
    """Embeds the student's images with its teachers."""
    training, combined = pipeline.config.specialist, pipeline.config.combined_seeds
    teachers = student_teachers(pipeline.teaching, grouped_specialists(pipeline), combined)
    reference = find_reference(
        pipeline.config.align_to,
        pipeline.run,
        teachers,
        init_weights=training.init_weights,
        seed=training.optimization.seed,
    )
    old, grown = None, pipeline.grown
    if grown and isinstance(reference, Stage):
        old = OldImages.of(grown.replayed, reference, grown.old)
    return [targets_stage(pipeline.run, teachers, reference, pipeline.config.targets, old=old)]
