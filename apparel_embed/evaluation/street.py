"""Evaluation of detector and embedding model together: from photographs to items."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.common.files import write_json
from apparel_embed.data.images import crop_rectangle
from apparel_embed.data.labelled_sheet import BOXED_SIDE, draw_boxes
from apparel_embed.data.photographs import Garments, from_square, garments_of
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.bootstrap import stratified_bootstrap_interval
from apparel_embed.evaluation.detection import (
    Found,
    average_precision,
    boxes_to_draw,
    found_garments,
    match_garments,
)
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.evaluation.split import ALL, EvaluationSet
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.models.detector import load_detector
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.models.preprocessing import decode_image, fit_square

DETECTION_FILE, DETECTION_SHEET = "detection.json", "detection.png"
DETECTED, TRUE_BOXES, WHOLE = "detected", "true_boxes", "whole_photograph"
"""The query image for each garment of a photograph."""
_AT_ONCE = 64
_READ_AHEAD = 64
_MOST_SHOWN = 12


def measure_street(
    photographs: PreparedDataset,
    dataset: PreparedDataset,
    images: EvaluationSet,
    embeddings: np.ndarray,
    *,
    detector: Path,
    model: Path,
    split: str,
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Measures detector and embedding model, alone and together.

    A garment counts as found if the nearest gallery image shows its item. It is searched in three
    ways: as on the search page, with its detected box in the detected vertical; with its true box
    in its true vertical; and with the whole photograph in all verticals, as without a detector. A
    garment that was not detected is not found.

    Args:
      photographs: the photographs of the run, prepared whole.
      dataset: the prepared dataset.
      images: the split of the dataset; its gallery is searched, except images of the query's own
        photograph.
      embeddings: float32 [n, dim], the model's embeddings of `images`.
      detector: directory of the detector.
      model: directory of the embedding model.
      split: the split of the photographs to measure on.
      seed: seed of the bootstrap.
      output: directory for `detection.json` and for `detection.png`, the photographs with most
        misses and false alarms.

    Returns:
      The content of `detection.json`.
    """
    tf.keras.backend.clear_session()
    records = photographs.select(split=split)
    truth = garments_of(photographs, records)
    found, certain, threshold = _detect(photographs, records, detector)
    precision = average_precision(truth, found, seed=seed)
    matches = match_garments(truth, certain)
    counts = _counts(truth, certain, matches)

    gallery = images.is_gallery
    items = set(images.items[gallery])
    is_query = np.array(
        [s == split and item in items for s, item in zip(truth.splits, truth.items)], bool
    )
    queries = np.flatnonzero(is_query)
    margin = dataset.image_settings.crop_margin
    embed = _CropEmbedder(photographs, records, model, margin)
    index = _Gallery(
        embeddings[gallery],
        images.items[gallery],
        images.verticals[gallery],
        dataset.column("image")[images.records[gallery]],
    )
    names = photographs.column("image")[records]
    places = truth.photographs[queries]
    own = names[places]
    wanted = truth.items[queries]
    right = {
        TRUE_BOXES: index.finds(
            embed(places, truth.boxes[queries]), wanted, truth.verticals[queries], own
        ),
        WHOLE: index.finds(embed.whole(places), wanted, None, own),
        DETECTED: np.zeros(len(queries), bool),
    }
    hit = np.flatnonzero(matches[queries] >= 0)
    match = matches[queries][hit]
    right[DETECTED][hit] = index.finds(
        embed(places[hit], certain.boxes[match]), wanted[hit], certain.verticals[match], own[hit]
    )
    rows = _rows(truth, queries, right, seed)
    verticals = sorted({*precision.by_vertical, *rows} - {ALL})
    whole = {**dataclasses.asdict(precision), **counts[ALL], **rows.get(ALL, {})}
    del whole["by_vertical"]
    record = {
        "split": split,
        "photographs": len(records),
        "garments": len(truth.photographs),
        "score_threshold": threshold,
        **whole,
        "verticals": {
            name: {
                **dataclasses.asdict(precision.by_vertical[name]),
                **counts.get(name, {}),
                **rows.get(name, {}),
            }
            for name in verticals
        },
    }
    write_json(output / DETECTION_FILE, record)
    if len(records):
        worst = _worst(photographs, records, truth, certain, matches)
        Image.fromarray(worst).save(output / DETECTION_SHEET, optimize=True)
    return record


def _detect(
    photographs: PreparedDataset, records: np.ndarray, detector: Path
) -> tuple[Found, Found, float]:
    """Returns a detector's output for photographs, its answers, and their score threshold."""
    model, config = load_detector(detector)
    raw = Embedder(model)(decoded_batches(photographs, records, config.image_size))
    answers = found_garments(raw, config, answered=True).at_least(config.score_threshold)
    return found_garments(raw, config, answered=False), answers, config.score_threshold


def _counts(truth: Garments, found: Found, matches: np.ndarray) -> dict[str, dict[str, int]]:
    """Returns misses, false alarms and wrong verticals for each true vertical and for all."""
    is_false, hit = _false_alarms(found, matches), matches >= 0
    is_wrong = np.zeros(len(matches), bool)
    is_wrong[hit] = found.verticals[matches[hit]] != truth.verticals[hit]
    counts = {}
    for name in (*sorted(set(truth.verticals)), ALL):
        ours = np.ones(len(hit), bool) if name == ALL else truth.verticals == name
        theirs = np.ones(len(is_false), bool) if name == ALL else found.verticals == name
        counts[name] = {
            "garments": int(ours.sum()),
            "missed": int((~hit & ours).sum()),
            "wrong_vertical": int((is_wrong & ours).sum()),
            "false_alarms": int((is_false & theirs).sum()),
        }
    return counts


def _false_alarms(found: Found, matches: np.ndarray) -> np.ndarray:
    """Returns whether each detection matches no garment: bool [detections]."""
    is_false = np.ones(len(found.scores), bool)
    is_false[matches[matches >= 0]] = False
    return is_false


def _rows(
    truth: Garments, queries: np.ndarray, right: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, Any]]:
    """Returns R@1 with its interval for each way to search, per vertical and for their mean."""
    rows: dict[str, dict[str, Any]] = {}
    verticals, items = truth.verticals[queries], truth.items[queries]
    for name in (*sorted(set(verticals)), ALL) if len(queries) else ():
        some = np.ones(len(queries), bool) if name == ALL else verticals == name
        row = rows[name] = {"queries": int(some.sum())}
        for way, values in right.items():
            shares = values[some].astype(np.float64)
            strata = verticals[some].astype(str)
            means = [shares[strata == one].mean() for one in np.unique(strata)]
            low, high = stratified_bootstrap_interval(
                shares, items[some].astype(str), strata, seed, possible=(0.0, 1.0)
            )
            row[f"r_at_1_{way}"] = float(np.mean(means))
            row[f"r_at_1_{way}_low"], row[f"r_at_1_{way}_high"] = low, high
    return rows


class _CropEmbedder:
    """Embeds parts of photographs, cropped in the same way as by `prepare`."""

    def __init__(
        self, photographs: PreparedDataset, records: np.ndarray, model: Path, margin: float
    ) -> None:
        loaded, config = load_embedding_model(model)
        self._embed, self._size = Embedder(loaded), config.image_size
        self._photographs, self._records, self._margin = photographs, records, margin

    def __call__(self, places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Embeds boxes [n, 4], in fractions of the square, of photographs at positions [n]."""
        return self._embed(self._batches(places, boxes))

    def whole(self, places: np.ndarray) -> np.ndarray:
        """Embeds the whole photographs at positions [n]."""
        different, again = np.unique(places, return_inverse=True)
        return self._embed(self._batches(different, None))[again]

    def _batches(self, places: np.ndarray, boxes: np.ndarray | None) -> Iterator[tf.Tensor]:
        batch = []
        for start in range(0, len(places), _READ_AHEAD):
            some = slice(start, start + _READ_AHEAD)
            encoded = self._photographs.read_images(self._records[places[some]])
            for number, jpeg in enumerate(encoded, start=start):
                image = decode_image(jpeg)
                if boxes is not None:
                    image = self._cut(image, boxes[number])
                batch.append(fit_square(image, self._size))
                if len(batch) == _AT_ONCE:
                    yield tf.stack(batch)
                    batch = []
        if batch:
            yield tf.stack(batch)

    def _cut(self, image: tf.Tensor, box: np.ndarray) -> tf.Tensor:
        size = (image.shape[1], image.shape[0])
        (pixels,) = from_square(box[None], np.array([size]))
        left, top, right, bottom = crop_rectangle(size, tuple(pixels.tolist()), self._margin)
        return image[top:bottom, left:right]


@dataclasses.dataclass(frozen=True, eq=False)
class _Gallery:
    """The searched images: embeddings [n, dim], items, verticals and image names [n]."""

    embeddings: np.ndarray
    items: np.ndarray
    verticals: np.ndarray
    images: np.ndarray

    def finds(
        self,
        queries: np.ndarray,
        items: np.ndarray,
        verticals: np.ndarray | None,
        images: np.ndarray,
    ) -> np.ndarray:
        """Returns whether the nearest image from another file shows the item: bool [n].

        Args:
          queries: float32 [n, dim], embeddings of the queries.
          items: [n] the item of each query.
          verticals: [n] the vertical that each query searches; None for all.
          images: [n] the name of each query's photograph.
        """
        _, numbers = np.unique(np.concatenate([self.images, images]), return_inverse=True)
        theirs, ours = numbers[: len(self.images)], numbers[len(self.images) :]
        right = np.zeros(len(queries), bool)
        groups: Sequence[str | None] = [None] if verticals is None else sorted(set(verticals))
        for name in groups:
            some = np.ones(len(queries), bool) if verticals is None else verticals == name
            inside = np.flatnonzero(
                np.ones(len(theirs), bool) if verticals is None else self.verticals == name
            )
            if not some.any() or not inside.size:
                continue
            found, _ = nearest(
                queries[some], self.embeddings[inside], 1, ours[some], theirs[inside]
            )
            is_found = found[:, 0] >= 0
            answers = self.items[inside][np.maximum(found[:, 0], 0)]
            right[some] = is_found & (answers == items[some])
        return right


def _worst(
    photographs: PreparedDataset,
    records: np.ndarray,
    truth: Garments,
    found: Found,
    matches: np.ndarray,
) -> np.ndarray:
    """Draws the photographs with the most misses and false alarms."""
    count = len(records)
    is_false = _false_alarms(found, matches)
    wrong = np.bincount(truth.photographs[matches < 0], minlength=count)
    wrong = wrong + np.bincount(found.photographs[is_false], minlength=count)
    worst = np.argsort(-wrong, kind="stable")[:_MOST_SHOWN]
    squares = np.concatenate(list(decoded_batches(photographs, records[worst], BOXED_SIDE)))
    drawn = boxes_to_draw(truth, found, count)
    return draw_boxes(squares, [drawn[place] for place in worst])
