"""How well garments are found in photographs: average precision, by pycocotools, and matches."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from apparel_embed.data.labelled_sheet import Box
from apparel_embed.data.photographs import Garments
from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import detections_of, with_one_vertical

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

LEAST_SCORE = 0.01
"""From here on what a detector says is measured: average precision counts it all."""
RIGHT_OVERLAP = 0.5
"""IoU from which on a found box is that of a garment."""
# pycocotools thinks in pixels; boxes are parts of a square's side.
_SIDE = 1000.0
_RESAMPLES = 300
_MOST_FOUND = 100
_AT_ONCE = 256


class Found(NamedTuple):
    """Garments that a detector has found in photographs, a row for each.

    Attributes:
      photographs: int64 [n], place of its photograph.
      boxes: float32 [n, 4]: x_min, y_min, x_max, y_max as parts of the square that the photograph
        is fitted into.
      scores: float32 [n], in 0 to 1.
      verticals: object [n], names.
    """

    photographs: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    verticals: np.ndarray

    def at_least(self, score: float) -> Found:
        """Returns those of a score and more."""
        return Found(*(values[self.scores >= score] for values in self))


@dataclasses.dataclass(frozen=True)
class Precision:
    """Average precision of a vertical, or the mean of all.

    Attributes:
      ap50: at an overlap (IoU) of 0.5.
      ap: mean over overlaps of 0.5, 0.55 ... 0.95, COCO's own.
      ap50_low, ap50_high: 95 % interval of `ap50`, by the bootstrap over photographs; None where
        that was not asked for.
    """

    ap50: float
    ap: float
    ap50_low: float | None = None
    ap50_high: float | None = None


@dataclasses.dataclass(frozen=True)
class AveragePrecision(Precision):
    """Average precision over verticals, and of each that the photographs show."""

    by_vertical: Mapping[str, Precision] = dataclasses.field(default_factory=dict)


def found_garments(raw: np.ndarray, model: DetectorConfig, *, answered: bool) -> Found:
    """Returns the garments that a detector's outputs [n, cells, 4 + verticals] say.

    Args:
      raw: float32, of n photographs.
      model: what the detector is made of.
      answered: whether a garment has one vertical, as in what is answered; else the verticals are
        apart, as average precision takes them.
    """

    def found(some: np.ndarray) -> list[np.ndarray]:
        detections = detections_of(tf.constant(some), model, LEAST_SCORE)
        if answered:
            detections = with_one_vertical(detections)
        return [value.numpy() for value in detections]

    parts = [found(some) for some in np.array_split(raw, max(1, -(-len(raw) // _AT_ONCE)))]
    boxes, scores, kinds = (np.concatenate(values) for values in zip(*parts))
    photographs, places = np.nonzero(scores > 0)
    names = np.array(model.verticals, object)
    return Found(
        photographs,
        boxes[photographs, places],
        scores[photographs, places],
        names[kinds[photographs, places]],
    )


def average_precision(
    truth: Garments, found: Found, *, seed: int | None = None
) -> AveragePrecision:
    """Measures a detector.

    Args:
      truth: the garments of the photographs.
      found: what the detector says, from small scores on.
      seed: of the bootstrap; None for no intervals.

    Returns:
      Zeros where the photographs show no garment.
    """
    verticals = sorted(set(truth.verticals))
    if not verticals:
        return AveragePrecision(0.0, 0.0)
    evaluation = _evaluated(truth, found, verticals)
    ap50, ap = _of_verticals(evaluation)
    low = high = np.full(len(verticals) + 1, None)
    if seed is not None:
        resampled = _resampled(evaluation, len(verticals), seed)
        resampled = np.column_stack([resampled, np.nanmean(resampled, axis=1)])
        low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0).tolist()
    rows = list(zip(ap50.tolist(), ap.tolist(), low, high))
    by_vertical = {name: Precision(*row) for name, row in zip(verticals, rows)}
    return AveragePrecision(float(ap50.mean()), float(ap.mean()), low[-1], high[-1], by_vertical)


def _evaluated(truth: Garments, found: Found, verticals: Sequence[str]) -> COCOeval:
    """Returns pycocotools' evaluation, matched but not yet accumulated."""
    # Here, as it brings along matplotlib.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools takes numbers of 0 for none.
    numbers = {name: place for place, name in enumerate(verticals, start=1)}

    def rows(photographs: np.ndarray, boxes: np.ndarray, names: np.ndarray) -> list[dict[str, Any]]:
        corners = boxes.astype(np.float64) * _SIDE
        sides = corners[:, 2:] - corners[:, :2]
        return [
            {
                "id": number,
                "image_id": int(photograph),
                "category_id": numbers[name],
                "bbox": [*corner[:2], *side],
                "area": float(side.prod()),
                "iscrowd": 0,
            }
            for number, (photograph, corner, side, name) in enumerate(
                zip(photographs, corners.tolist(), sides, names), start=1
            )
        ]

    known = np.isin(found.verticals.astype(str), verticals)
    found = Found(*(values[known] for values in found))
    photographs = sorted({*truth.photographs.tolist(), *found.photographs.tolist()})
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    images = [{"id": one} for one in photographs]
    said = rows(found.photographs, found.boxes, found.verticals)
    for row, score in zip(said, found.scores):
        row["score"] = float(score)
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for annotations in (rows(truth.photographs, truth.boxes, truth.verticals), said):
            coco = COCO()
            coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
            coco.createIndex()
            sets.append(coco)
        evaluation = COCOeval(*sets, "bbox")
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [_MOST_FOUND]
        evaluation.evaluate()
    return evaluation


def _of_verticals(evaluation: COCOeval) -> tuple[np.ndarray, np.ndarray]:
    """Accumulates; returns AP50 and AP of each vertical, NaN where no garment is to be found."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    # Overlap, recall, vertical, size, most found; -1 where there is nothing to be found.
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])[
        ..., 0, 0
    ]
    return precision[0].mean(axis=0), precision.mean(axis=(0, 1))


def _resampled(evaluation: COCOeval, verticals: int, seed: int) -> np.ndarray:
    """Returns AP50 of each vertical [resamples, verticals], of photographs drawn with repeats."""
    generator = np.random.default_rng(seed)
    # Only the first overlap is asked for: a tenth of the work.
    matched = np.array([one and _at_first_overlap(one) for one in evaluation.evalImgs], object)
    matched = matched.reshape(verticals, -1)
    photographs = matched.shape[1]
    evaluation.params.iouThrs = evaluation.params.iouThrs[:1]
    evaluation._paramsEval.iouThrs = evaluation.params.iouThrs
    results = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, photographs, photographs)
        evaluation.evalImgs = matched[:, drawn].ravel().tolist()
        results.append(_of_verticals(evaluation)[0])
    return np.stack(results)


def _at_first_overlap(matched: dict[str, Any]) -> dict[str, Any]:
    """Returns what pycocotools matched in a photograph, at the first overlap alone."""
    return {**matched, **{name: matched[name][:1] for name in ("dtMatches", "dtIgnore")}}


def match_garments(truth: Garments, found: Found) -> np.ndarray:
    """Tells which found garment is which true one, whatever their verticals.

    The likeliest choose first, each the garment of its photograph that it overlaps most.

    Args:
      truth: garments of photographs.
      found: what a detector says.

    Returns:
      int64 [true garments], places in `found`; -1 where a garment was missed.
    """
    matches = np.full(len(truth.photographs), -1, np.int64)
    overlaps = {}
    for photograph in np.unique(truth.photographs):
        ours = np.flatnonzero(truth.photographs == photograph)
        theirs = np.flatnonzero(found.photographs == photograph)
        overlaps[photograph] = (ours, theirs, box_overlaps(truth.boxes[ours], found.boxes[theirs]))
    for ours, theirs, overlap in overlaps.values():
        for place in np.argsort(-found.scores[theirs], kind="stable"):
            free = np.where(matches[ours] < 0, overlap[:, place], 0.0)
            best = int(np.argmax(free))
            if free[best] >= RIGHT_OVERLAP:
                matches[ours[best]] = theirs[place]
    return matches


def box_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU, float [n, m], of boxes [n, 4] with others [m, 4]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [np.prod(some[:, 2:] - some[:, :2], axis=-1) for some in (boxes, others)]
    return both / np.maximum(areas[0][:, None] + areas[1][None, :] - both, 1e-12)


def best_threshold(truth: Garments, found: Found) -> float:
    """Returns the score from which on most is found and most of what is found is right (F2).

    In F2 (van Rijsbergen 1979) finding counts twice as much: a garment that was missed cannot be
    searched, a false alarm is seen and passed over.

    Args:
      truth: the garments of the photographs; at least one.
      found: what the detector answers, from small scores on.

    Returns:
      A score of two decimals, at least 0.05; of thresholds as good the middle one.
    """
    matches = match_garments(truth, found)
    is_right = np.zeros(len(found.scores), bool)
    hit = matches >= 0
    is_right[matches[hit]] = found.verticals[matches[hit]] == truth.verticals[hit]
    thresholds = np.arange(5, 96) / 100
    kept = found.scores[None, :] >= thresholds[:, None]
    right = (kept & is_right).sum(axis=1)
    f2 = 5 * right / (kept.sum(axis=1) + 4 * len(truth.photographs))
    best = np.flatnonzero(f2 >= f2.max() - 1e-9)
    return float(thresholds[best[len(best) // 2]])


def boxes_to_draw(truth: Garments, found: Found, count: int) -> list[list[Box]]:
    """Returns the boxes of the first photographs: white what is there, green and red what is found.

    Args:
      truth: garments of photographs.
      found: what a detector says; green where it is right, red where it is not.
      count: number of photographs.
    """
    boxes: list[list[Box]] = [[] for _ in range(count)]
    matches = match_garments(truth, found)
    hit = matches >= 0
    right = matches[hit][found.verticals[matches[hit]] == truth.verticals[hit]]
    for place, box in zip(truth.photographs, truth.boxes):
        if place < count:
            boxes[place].append(Box(box, "", "white"))
    for number, (place, box) in enumerate(zip(found.photographs, found.boxes)):
        if place < count:
            label = f"{found.verticals[number]} {found.scores[number]:.2f}"
            boxes[place].append(Box(box, label, "lime" if number in right else "red"))
    return boxes
