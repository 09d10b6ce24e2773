"""The sections on training: the student's teachers, and the curves of every training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

from apparel_embed.common.text import counted
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.roles import UNIFIED
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import DASH, TEACHER_HEADER, teacher_rows
from apparel_embed.report.drawing import literal, model_style, new_figure, png_bytes
from apparel_embed.report.gap import share
from apparel_embed.report.inputs import ReportInputs, Training
from apparel_embed.report.page import Figure, Section, Table
from apparel_embed.store.names import TARGETS

_LOSS = "loss"
_VALIDATION = "validation/r_at_1"
_PANELS_A_LINE = 4
# The most trainings drawn; matplotlib draws at most 65,536 pixels, and nobody reads that many.
_MOST_DRAWN = 100
_Curve = Mapping[int, float]


def teachers_section(inputs: ReportInputs) -> Section:
    """Returns the section on the choice of teachers and the student's agreement with them."""
    parts: list[Table] = []
    targets = inputs.stages.get(TARGETS)
    if targets:
        parts.append(
            Table(
                "Candidates to teach each vertical; joint combines all of them in one vector. The "
                "first is chosen by the queries of all verticals together, and replaced if another "
                "is shown to be better on the vertical's own queries (90 % confidence, bootstrap "
                "over items).",
                TEACHER_HEADER,
                tuple(teacher_rows(targets.result["choices"])),
            )
        )
    student = next((one.stage for one in inputs.trainings if one.model == UNIFIED), None)
    agreement = student.result.get("agreement") if student else None
    text = "The teachers whose embeddings the student learnt, and how well it reproduces them."
    if student and agreement:
        parts.append(
            Table(
                "Mean cosine between the student's embeddings and its targets.",
                ("training images", "augmented views of them", "split val, not trained on"),
                (tuple(share(agreement[name]) for name in ("train", "augmented", "held_out")),),
            )
        )
        text += f" The student: {student.result['diagnosis']}."
    return Section("teachers", "Who taught the student", text, tuple(parts))


def trainings_section(inputs: ReportInputs) -> Section:
    """Returns the section with losses and validation R@1 of all trainings against steps."""
    # A group of one vertical shares its training with the specialist of that vertical.
    trainings = list({training.stage.name: training for training in inputs.trainings}.values())
    queries = answered_queries(evaluation_set(inputs.dataset, "val"))
    # Keep the last ones, which include the combined model and the student.
    drawn = trainings[-_MOST_DRAWN:]
    directories = [training.stage.directory / "tensorboard" for training in drawn]
    logged = [read_scalars(directory, (_LOSS, _VALIDATION)) for directory in directories]
    left_out = len(trainings) - len(drawn)
    more = f" Not drawn: the first {counted(left_out, 'training')}." if left_out else ""
    parts: list[Table | Figure] = [_table(trainings, queries)]
    losses, validations = ([one[name] for one in logged] for name in (_LOSS, _VALIDATION))
    if any(losses):
        counts = [training.stage.result["train_images"] for training in trainings]
        few, many = min(counts), counted(max(counts), "training image")
        caption = (
            "Loss of a batch against steps, as logged. Specialists and the combined model have "
            "a triplet loss, the student has a distance to its targets, so their scales differ. "
            + (f"Each training has {many}" if few == max(counts) else f"{few:,} to {many} each")
            + f".{more}"
        )
        parts.append(Figure("losses", caption, _panels(drawn, losses, "loss")))
    if any(validations):
        caption = (
            "R@1 within on split val against steps. The ring marks the step whose weights were "
            "kept: the latest of those within a standard error of the best, or for the student "
            "the one nearest to its teachers. "
            f"{counted(sum(queries.values()), 'validation query', 'validation queries')} in total; "
            f"a specialist answers those of its own verticals.{more}"
        )
        png = _panels(drawn, validations, "R@1 within, split val", is_validation=True)
        parts.append(Figure("validation", caption, png))
    missing = "" if len(parts) > 1 else " There are no event files to draw curves from."
    text = f"The trainings of this run and their results.{missing}"
    return Section("trainings", "Trainings", text, tuple(parts))


def read_scalars(directory: Path, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """Reads scalars from the TensorBoard event files of a training.

    Args:
      directory: directory of the event files; an interrupted training leaves several.
      names: names of the scalars.

    Returns:
      Values of each scalar by ascending step; if a step was logged twice, the later value.
    """
    points: dict[str, dict[int, float]] = {name: {} for name in names}
    # File by file in order of time, because TensorBoard logs every file if given a directory.
    for file in sorted(directory.glob("events.out.tfevents.*")):
        # 0 keeps all events; the default is a sample.
        events = EventAccumulator(str(file), size_guidance={TENSORS: 0})
        events.Reload()
        for name in set(names) & set(events.Tags()[TENSORS]):
            for event in events.Tensors(name):
                points[name][event.step] = float(tf.make_ndarray(event.tensor_proto))
    return {name: dict(sorted(found.items())) for name, found in points.items()}


def _table(trainings: Sequence[Training], queries: Mapping[str, int]) -> Table:
    body = []
    for training in trainings:
        result, flags = training.stage.result, training.stage.flags
        verticals = flags.get("verticals", queries)
        body.append(
            (
                training.label,
                f"{result['train_images']:,}",
                f"{flags['optimization']['steps']:,}",
                f"{result['kept_step']:,}",
                f"{sum(queries.get(name, 0) for name in verticals):,}",
                share(result["validation_r_at_1"]),
                DASH if math.isnan(result["last_loss"]) else f"{result['last_loss']:.4f}",
            )
        )
    return Table(
        "Every training: number of images, steps, the step whose weights were kept, and R@1 within "
        "on split val at that step with its number of validation queries.",
        ("training", "images", "steps", "kept step", "val queries", "R@1 val", "last loss"),
        tuple(body),
    )


def _panels(
    trainings: Sequence[Training],
    curves: Sequence[_Curve],
    what: str,
    is_validation: bool = False,
) -> bytes:
    """Returns a figure with one panel per training; validation panels share a scale."""
    columns = min(_PANELS_A_LINE, len(curves))
    lines = -(-len(curves) // columns)
    figure = new_figure(2.8 * columns, 2.1 * lines + 0.3)
    grid = figure.subplots(lines, columns, sharey=is_validation, squeeze=False)
    for axis in grid.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, training, curve in zip(grid.flat, trainings, curves):
        axis.set_title(literal(training.label), fontsize=9)
        axis.grid(color="#e0e0e0", linewidth=0.6)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4, integer=True)
        if not curve:
            axis.text(0.5, 0.5, "not logged", ha="center", transform=axis.transAxes)
            continue
        colour, _ = model_style(training.model)
        steps, values = list(curve), list(curve.values())
        if is_validation:
            axis.plot(steps, values, color=colour, linewidth=1.4, marker=".", markersize=4)
            kept = [step for step in steps if step == training.stage.result["kept_step"]]
            ring = {"color": colour, "fillstyle": "none", "markersize": 9}
            axis.plot(kept, [curve[step] for step in kept], "o", **ring)
        else:
            # A single point needs a marker to be visible.
            dot = "." if len(curve) == 1 else ""
            axis.plot(steps, values, color=colour, linewidth=1.2, marker=dot)
            axis.set_ylim(0, 1.08 * max(*values, 1e-4))
        axis.set_xlim(0, 1.04 * steps[-1])
    if is_validation:
        highest = max(max(curve.values()) for curve in curves if curve)
        grid[0, 0].set_ylim(0, 1.1 * max(highest, 1e-9))
    figure.supxlabel("step", fontsize=9)
    figure.supylabel(what, fontsize=9)
    return png_bytes(figure)
