"""How the models were trained: who taught the student, and the course of every training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

from apparel_embed.common.text import counted
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import DASH
from apparel_embed.evaluation.teachers import HEADINGS, choice_rows
from apparel_embed.report.drawing import literal, model_style, new_figure, png_bytes
from apparel_embed.report.gap import share
from apparel_embed.report.inputs import UNIFIED, ReportInputs, Training
from apparel_embed.report.page import Picture, Section, Table

_LOSS = "loss"
_VALIDATION = "validation/r_at_1"
_PANELS_A_LINE = 4


def teachers_section(inputs: ReportInputs) -> Section:
    """Returns the tables of the teachers' evidence and of the student's agreement with them."""
    parts: list[Table] = []
    if inputs.targets:
        parts.append(
            Table(
                "The joint is all teachers of a vertical in one vector. First is what teaches by "
                "the queries of all verticals together; another candidate does where it is shown "
                "to be better on the vertical's own, with 90 % confidence by bootstrap over items.",
                HEADINGS,
                tuple(choice_rows(inputs.targets.result["choices"])),
            )
        )
    student = next((one.stage for one in inputs.trainings if one.model == UNIFIED), None)
    agreement = student.result.get("agreement") if student else None
    text = ""
    if student and agreement:
        cells = tuple(
            "-" if agreement[name] is None else f"{agreement[name]:.3f}"
            for name in ("train", "augmented", "held_out")
        )
        parts.append(
            Table(
                "Mean cosine between the student's embeddings and its targets.",
                ("images learnt from", "augmented views of them", "split val, not learnt from"),
                (cells,),
            )
        )
        text = f" The student: {student.result['diagnosis']}."
    return Section(
        "teachers",
        "Who taught the student",
        f"What the student learnt to reproduce, and how well it does.{text}",
        tuple(parts),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Scalar:
    """A number logged during a training.

    Attributes:
      steps: int64 [n], rising.
      values: float64 [n].
    """

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


def read_scalars(directory: Path, names: Sequence[str]) -> dict[str, Scalar]:
    """Reads numbers from the TensorBoard event files of a training.

    Args:
      directory: of the event files; an interrupted training has left several.
      names: of the numbers.

    Returns:
      Each number, empty where it was not logged. Of a step logged twice the later counts.
    """
    points: dict[str, dict[int, float]] = {name: {} for name in names}
    # File by file, in order of time: of a directory TensorBoard tells each file in the log.
    for file in sorted(directory.glob("events.out.tfevents.*")):
        # 0 keeps all; the default is a sample.
        events = EventAccumulator(str(file), size_guidance={TENSORS: 0})
        events.Reload()
        for name in set(names) & set(events.Tags()[TENSORS]):
            for event in events.Tensors(name):
                points[name][event.step] = float(tf.make_ndarray(event.tensor_proto))
    return {
        name: Scalar(
            np.array(sorted(found), np.int64),
            np.array([found[step] for step in sorted(found)], np.float64),
        )
        for name, found in points.items()
    }


def trainings_section(inputs: ReportInputs) -> Section:
    """Returns the losses and validation R@1 of all trainings against their steps."""
    # The specialist of a vertical is that of a group, too, if the group is this vertical alone.
    trainings = list({training.stage.name: training for training in inputs.trainings}.values())
    logged = [
        (training, read_scalars(training.stage.directory / "tensorboard", (_LOSS, _VALIDATION)))
        for training in trainings
    ]
    queries = answered_queries(evaluation_set(inputs.dataset, "val"))
    table = _table(trainings, queries)
    losses = [(training, scalars[_LOSS]) for training, scalars in logged]
    validations = [(training, scalars[_VALIDATION]) for training, scalars in logged]
    pictures = []
    if any(len(scalar) for _, scalar in losses):
        pictures.append(
            Picture(
                "losses",
                "Loss of a batch against steps, as logged. Specialists and the combined model "
                "have a triplet loss, the student a distance to its targets: their "
                f"scales differ. {_trained_on(trainings)}.",
                _panels(losses, "loss", _draw_loss),
            )
        )
    if any(len(scalar) for _, scalar in validations):
        pictures.append(
            Picture(
                "validation",
                "R@1 within on split val against steps; the ring is the step whose weights were "
                f"kept. {counted(sum(queries.values()), 'validation query', 'validation queries')} "
                "in all; a specialist answers those of its own verticals.",
                _panels(validations, "R@1 within, split val", _draw_validation, same_scale=True),
            )
        )
    missing = "" if pictures else " No event files are there to draw curves from."
    return Section(
        "trainings",
        "Trainings",
        "What was trained for this run, and how it went." + missing,
        (table, *pictures),
    )


def _table(trainings: Sequence[Training], queries: dict[str, int]) -> Table:
    body = []
    for training in trainings:
        result, flags = training.stage.result, training.stage.flags
        verticals = flags.get("verticals", queries)
        body.append(
            (
                training.label,
                f"{result['train_pictures']:,}",
                f"{flags['optimization']['steps']:,}",
                f"{result['kept_step']:,}",
                f"{sum(queries.get(name, 0) for name in verticals):,}",
                share(result["validation_r_at_1"]),
                DASH if math.isnan(result["last_loss"]) else f"{result['last_loss']:.4f}",
            )
        )
    return Table(
        "Every training: pictures it learnt from, steps, the step kept, and R@1 within on split "
        "val at that step, over so many validation queries.",
        ("training", "pictures", "steps", "kept step", "val queries", "R@1 val", "last loss"),
        tuple(body),
    )


def _trained_on(trainings: Sequence[Training]) -> str:
    counts = [training.stage.result["train_pictures"] for training in trainings]
    few, many = min(counts), counted(max(counts), "training picture")
    return f"Each training has {many}" if len(set(counts)) == 1 else f"{few:,} to {many} each"


def _panels(
    curves: Sequence[tuple[Training, Scalar]],
    what: str,
    draw: Callable[[Axes, Training, Scalar], None],
    same_scale: bool = False,
) -> bytes:
    """Returns a figure with a panel per training."""
    columns = min(_PANELS_A_LINE, len(curves))
    lines = -(-len(curves) // columns)
    figure = new_figure(2.8 * columns, 2.1 * lines + 0.3)
    grid = figure.subplots(lines, columns, sharey=same_scale, squeeze=False)
    for axis in grid.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (training, scalar) in zip(grid.flat, curves):
        axis.set_title(literal(training.label), fontsize=9)
        axis.grid(color="#e0e0e0", linewidth=0.6)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4, integer=True)
        if len(scalar):
            draw(axis, training, scalar)
            axis.set_xlim(0, 1.04 * scalar.steps[-1])
        else:
            axis.text(0.5, 0.5, "not logged", ha="center", transform=axis.transAxes)
    if same_scale:
        highest = max(scalar.values.max() for _, scalar in curves if len(scalar))
        grid[0, 0].set_ylim(0, 1.1 * max(highest, 1e-9))
    figure.supxlabel("step", fontsize=9)
    figure.supylabel(what, fontsize=9)
    return png_bytes(figure)


def _draw_loss(axis: Axes, training: Training, scalar: Scalar) -> None:
    colour, _ = model_style(training.model)
    # A single point is no line.
    axis.plot(scalar.steps, scalar.values, color=colour, linewidth=1.2, marker=_dot(scalar))
    axis.set_ylim(0, 1.08 * max(scalar.values.max(), 1e-9))


def _draw_validation(axis: Axes, training: Training, scalar: Scalar) -> None:
    colour, _ = model_style(training.model)
    axis.plot(scalar.steps, scalar.values, color=colour, linewidth=1.4, marker=".", markersize=4)
    kept = scalar.steps == training.stage.result["kept_step"]
    axis.plot(
        scalar.steps[kept], scalar.values[kept], "o", color=colour, fillstyle="none", markersize=9
    )


def _dot(scalar: Scalar) -> str:
    return "." if len(scalar) == 1 else ""
