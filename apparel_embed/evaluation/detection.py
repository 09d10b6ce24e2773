"""Evaluation of a garment detector: average precision from pycocotools, and matches."""

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
"""The lowest score that is measured: average precision counts low scores too."""
RIGHT_OVERLAP = 0.5
"""The smallest IoU at which a detected box matches a garment."""
# pycocotools expects pixels; boxes are fractions of a square's side.
_SIDE = 1000.0
_RESAMPLES = 300
_MOST_FOUND = 100
_AT_ONCE = 256


class Found(NamedTuple):
    """Garments that a detector has found in photographs, one row each.

    Attributes:
      photographs: int64 [n], position of the garment's photograph.
      boxes: float32 [n, 4]: x_min, y_min, x_max, y_max as fractions of the square that the
        photograph is fitted into.
      scores: float32 [n], 0 to 1.
      verticals: object [n], names.
    """

    photographs: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    verticals: np.ndarray

    def at_least(self, score: float) -> Found:
        """Returns the garments with at least this score."""
        return Found(*(values[self.scores >= score] for values in self))


@dataclasses.dataclass(frozen=True)
class Precision:
    """Average precision of one vertical, or the mean over all.

    Attributes:
      ap50: average precision at an overlap (IoU) of 0.5.
      ap: mean over overlaps of 0.5, 0.55 ... 0.95, as in COCO.
      ap50_low, ap50_high: 95 % interval of `ap50` from a bootstrap over photographs; None if it
        was not requested.
    """

    ap50: float
    ap: float
    ap50_low: float | None = None
    ap50_high: float | None = None


@dataclasses.dataclass(frozen=True)
class AveragePrecision(Precision):
    """Mean average precision over verticals, and that of each vertical in the photographs."""

    by_vertical: Mapping[str, Precision] = dataclasses.field(default_factory=dict)


def found_garments(raw: np.ndarray, model: DetectorConfig, *, answered: bool) -> Found:
    """Returns the garments in a detector's outputs.

    Args:
      raw: float32 [n, cells, 4 + verticals], the outputs for n photographs.
      model: the detector's configuration.
      answered: if true, each garment has one vertical, as in the service's answers; if false, every
        vertical is a detection of its own, as average precision requires.
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
    """Measures the average precision of a detector.

    Args:
      truth: the garments in the photographs.
      found: the detector's output, including low scores.
      seed: seed of the bootstrap; None for no intervals.

    Returns:
      The average precision; zeros if the photographs show no garment.
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
    # Imported here because it loads matplotlib.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools treats an id of 0 as no id.
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
    detections = rows(found.photographs, found.boxes, found.verticals)
    for row, score in zip(detections, found.scores):
        row["score"] = float(score)
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for annotations in (rows(truth.photographs, truth.boxes, truth.verticals), detections):
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
    """Accumulates; returns AP50 and AP of each vertical, NaN for verticals without garments."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    # Axes: overlap, recall, vertical, area, maxDets; -1 where there is no garment to find.
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])[
        ..., 0, 0
    ]
    return precision[0].mean(axis=0), precision.mean(axis=(0, 1))


def _resampled(evaluation: COCOeval, verticals: int, seed: int) -> np.ndarray:
    """Returns AP50 [resamples, verticals] on photographs drawn with replacement."""
    generator = np.random.default_rng(seed)
    # AP50 needs only the first overlap, a tenth of the work.
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
    """Returns pycocotools' matches of a photograph at the first overlap only."""
    return {**matched, **{name: matched[name][:1] for name in ("dtMatches", "dtIgnore")}}


def match_garments(truth: Garments, found: Found) -> np.ndarray:
    """Matches detected garments to true ones, ignoring verticals.

    In descending order of score, each detection takes the free garment that it overlaps most.

    Args:
      truth: the garments in the photographs.
      found: the detector's output.

    Returns:
      int64 [true garments], positions in `found`; -1 for a missed garment.
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
    """Returns the score threshold with the best F2.

    F2 (van Rijsbergen 1979) weighs recall twice as much as precision: a missed garment cannot be
    searched, but a false alarm is easily ignored.

    Args:
      truth: the garments in the photographs; at least one.
      found: the detector's answers, including low scores.

    Returns:
      A score with two decimals, at least 0.05; the middle one of equally good thresholds.
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
    """Returns the boxes to draw on the first photographs.

    Args:
      truth: the garments in the photographs, drawn in white.
      found: the detector's output: right detections are drawn in green, wrong ones in red.
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
