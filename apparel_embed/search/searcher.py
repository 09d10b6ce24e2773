"""From an uploaded image to hits: crop, embed, route to a vertical, query the index."""

from __future__ import annotations

import collections
import dataclasses
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apparel_embed.data.images import (
    Box,
    ImageSettings,
    RejectedImage,
    image_size,
    prepare_image,
)
from apparel_embed.evaluation.absent import SAME, SIMILAR, Verdict
from apparel_embed.evaluation.items import ITEM, mean_vectors
from apparel_embed.evaluation.split import ALL
from apparel_embed.search.config import Limits
from apparel_embed.search.index import Hit, IndexedImage, VectorIndex, Version
from apparel_embed.serving.embeddings import ServedModel

_KNOWN_IMAGES = 10_000
# Longest side of a photograph for detection: every garment needs enough pixels.
_PHOTOGRAPH_SIDE = 1024
_EDGE = re.compile(r"\s*(-?\d{1,7}(?:\.\d{1,20})?)\s*", re.ASCII)


class NoGarment(Exception):
    """The model could not embed an image."""


class UnknownImage(Exception):
    """No image in the index has this key."""


class UnknownVertical(Exception):
    """The index has no such vertical; the message lists the existing ones."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
      hits: nearest first.
      vertical: the vertical searched; None for all.
      predicted: whether the model chose that vertical; verticals unknown to the model were then
        searched, too.
      why: why this vertical was searched, such as `predicted, 97%`.
      scores: (vertical, probability), most probable first; () if the model has none.
      seconds: duration of each step: `prepare`, `embed`, `search`.
      verdict: whether the nearest image is considered the same item, `SAME` or `SIMILAR`; None if
        the searcher has no threshold for this search, or the query was several images.
    """

    hits: list[Hit]
    vertical: str | None
    predicted: bool
    why: str
    scores: tuple[tuple[str, float], ...]
    seconds: dict[str, float]
    verdict: Verdict | None = None

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """The vertical searched ("ALL" for all) and the verdict; empty without a verdict."""
        return [(self.vertical or ALL, self.verdict)] if self.verdict else []

    @property
    def about(self) -> dict[str, Any]:
        """The fields for the log."""
        return {"vertical": self.vertical, "hits": len(self.hits)}


@dataclasses.dataclass(frozen=True)
class Garment:
    """A garment in a photograph.

    Attributes:
      box: in pixels of the upright image.
      score: score of the detector, 0 to 1.
      vertical: vertical that the detector predicts.
      found: items like it; None if they were not requested.
    """

    box: Box
    score: float
    vertical: str
    found: Found | None


@dataclasses.dataclass(frozen=True)
class Photograph:
    """The garments detected in a photograph.

    Attributes:
      width: width of the upright image in pixels.
      height: height of the upright image in pixels.
      garments: highest score first.
      seconds: duration of each step: `prepare`, `detect`, and `search` for all garments.
    """

    width: int
    height: int
    garments: list[Garment]
    seconds: dict[str, float]

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """The verdicts of all garments; see `Found.verdicts`."""
        return [one for garment in self.garments if garment.found for one in garment.found.verdicts]

    @property
    def about(self) -> dict[str, Any]:
        """The fields for the log."""
        return {"garments": len(self.garments)}


class Searcher:
    """Searches by image; thread-safe.

    Args:
      index: index to search.
      version: complete version whose embeddings are comparable to those of `model`.
      model: embeds images, locally or remotely.
      max_pixels: images with more pixels are rejected before they are decoded.
      routing_confidence: score at or above which only the predicted vertical is searched, unless
        the caller says otherwise; None for never.
      thresholds: distances by vertical (and "ALL") below which the nearest image is considered the
        same item; None if there are none for this model and index.
    """

    def __init__(
        self,
        index: VectorIndex,
        version: Version,
        model: ServedModel,
        max_pixels: int = ImageSettings.max_pixels,
        routing_confidence: float | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.index = index
        self.version = version
        self.routing_confidence = routing_confidence
        self._thresholds = thresholds or {}
        self._model = model
        self._max_pixels = max_pixels
        nothing = model.embed([])
        self.dim = nothing.embeddings.shape[1]
        # A model without a vertical head lists its verticals, too, but does not predict them.
        self.predicts = nothing.vertical_scores is not None
        self.detects = model.detects
        # Images of recent hits are usually requested next; this saves queries of the index.
        self._recent: collections.OrderedDict[str, IndexedImage] = collections.OrderedDict()
        self._lock = threading.Lock()

    @property
    def image_settings(self) -> ImageSettings:
        """How queries are prepared: in the same way as the images of the index."""
        return dataclasses.replace(self.version.image_settings, max_pixels=self._max_pixels)

    def refresh(self) -> Version:
        """Reloads the version, which another process may have changed, and returns it."""
        self.version = self.index.version(self.version.model) or self.version
        return self.version

    def search_bytes(
        self,
        encoded: bytes | Sequence[bytes],
        k: int,
        box: Box | None = None,
        vertical: str | None = None,
        all_verticals: bool | None = None,
    ) -> Found:
        """Finds items like the garment in an image, or in several images of one garment.

        Args:
          encoded: an image in any format supported by `prepare_image`; or several, up to
            `Limits.max_images`, whose mean embedding is the query.
          k: number of items.
          box: the garment in pixels of the upright image; None for the whole image. Must be None
            for several images.
          vertical: vertical to search; None to let `all_verticals` decide.
          all_verticals: True searches all. False searches the predicted vertical and those unknown
            to the model, or all if it predicts none. None uses what was measured to find more: the
            predicted vertical from the routing confidence on, otherwise all.

        Raises:
          RejectedImage: an image is unusable, or there are too few or too many.
          NoGarment: the model could not embed an image.
          UnknownVertical: the index has no such vertical.
        """
        self.refresh()
        self._check(vertical)
        several = [encoded] if isinstance(encoded, bytes) else encoded
        if not 1 <= len(several) <= (1 if box else Limits.max_images):
            expected = "1 because a box is given" if box else f"1 to {Limits.max_images}"
            raise RejectedImage(f"{len(several)} images; expected {expected}")
        times = [time.perf_counter()]
        jpegs = [prepare_image(one, self.image_settings, box).jpeg for one in several]
        times.append(time.perf_counter())
        embeddings, valid, all_scores = self._model.embed(jpegs)
        times.append(time.perf_counter())
        if not valid.all():
            raise NoGarment("the model could not embed this image")
        embedding = embeddings[0]
        if len(jpegs) > 1:
            (embedding,) = mean_vectors(embeddings, np.zeros(len(jpegs), np.int64))
        scores = self._ranked(None if all_scores is None else np.mean(all_scores, axis=0))
        predicted, why = False, "as requested"
        if vertical is None and not all_verticals:
            predicted, why = self._routing(scores, is_requested=all_verticals is not None)
        also: tuple[str, ...] = ()
        if predicted:
            vertical, also = scores[0][0], self.version.unknown_verticals(self._model.verticals)
        hits = self._hits(embedding, k, None if vertical is None else (vertical, *also))
        times.append(time.perf_counter())
        seconds = dict(zip(("prepare", "embed", "search"), np.diff(times).tolist()))
        # Mean embeddings are nearer to everything than the images that thresholds were fitted to.
        verdict = self._verdict(hits, vertical) if len(jpegs) == 1 else None
        return Found(hits, vertical, predicted, why, scores, seconds, verdict)

    def detect(self, encoded: bytes, k: int = 0, all_verticals: bool = False) -> Photograph:
        """Finds the garments in a photograph, and items like each.

        Args:
          encoded: an image in any format supported by `prepare_image`.
          k: number of items for each garment; 0 for none.
          all_verticals: search all; otherwise the detected vertical and those unknown to the
            model, or all if the index does not have the detected vertical.

        Raises:
          RejectedImage: the image is unusable.
          NoGarment: the model could not read the image.
          UserError: the model has no detector.
        """
        self.refresh()
        times = [time.perf_counter()]
        settings = dataclasses.replace(self.image_settings, max_side=_PHOTOGRAPH_SIDE)
        image = prepare_image(encoded, settings)
        width, height = image_size(encoded)
        times.append(time.perf_counter())
        (seen,) = self._model.detect([image.jpeg])
        times.append(time.perf_counter())
        if not seen.valid:
            raise NoGarment("the model could not read this image")
        boxes = (seen.boxes * (width, height, width, height)).tolist()
        garments = []
        for box, score, vertical, embedding in zip(
            boxes, seen.scores.tolist(), seen.verticals, seen.embeddings
        ):
            found = self._like(embedding, k, vertical, score, all_verticals) if k else None
            garments.append(Garment(tuple(box), score, vertical, found))
        times.append(time.perf_counter())
        seconds = dict(zip(("prepare", "detect", "search"), np.diff(times).tolist()))
        return Photograph(width, height, garments, seconds)

    def search_key(
        self, key: str, k: int, vertical: str | None = None, all_verticals: bool = False
    ) -> Found:
        """Finds items like an image in the index, which is left out of the hits.

        Args:
          key: key of the image.
          k: number of items.
          vertical: vertical to search; None for that of the image.
          all_verticals: search all.

        Raises:
          UnknownImage: no image has this key.
          UnknownVertical: the index has no such vertical.
        """
        self.refresh()
        self._check(vertical)
        why = "as requested" if vertical or all_verticals else "that of the image"
        start = time.perf_counter()
        found = self.index.find(self.version, [key])
        if not found:
            raise UnknownImage(f"no image {key[:32]!r} in the index")
        ((image, embedding),) = found
        vertical = None if all_verticals else (vertical or image.vertical)
        hits = self._hits(embedding, k, None if vertical is None else (vertical,), without=key)
        seconds = {"search": time.perf_counter() - start}
        return Found(hits, vertical, False, why, (), seconds, self._verdict(hits, vertical))

    def image(self, key: str) -> IndexedImage | None:
        """Returns an image of the index; None if the key is not in it."""
        with self._lock:
            if key in self._recent:
                return self._recent[key]
        found = self.index.find(self.version, [key])
        return found[0][0] if found else None

    def _hits(
        self, embedding: np.ndarray, k: int, verticals: Sequence[str] | None, without: str = ""
    ) -> list[Hit]:
        hits = self.index.search(self.version, embedding, k, vertical=verticals, without=without)
        with self._lock:
            for hit in hits:
                self._recent[hit.image.key] = hit.image
                self._recent.move_to_end(hit.image.key)
            while len(self._recent) > _KNOWN_IMAGES:
                self._recent.popitem(last=False)
        return hits

    def _like(
        self, embedding: np.ndarray, k: int, vertical: str, score: float, all_verticals: bool
    ) -> Found:
        """Returns items like a detected garment."""
        where, why = None, f"the index has no {vertical}"
        if all_verticals:
            why = "as requested"
        elif vertical in self.version.verticals:
            where = (vertical, *self.version.unknown_verticals(self._model.verticals))
            why = f"detected, {score:.0%}"
        hits, searched = self._hits(embedding, k, where), where[0] if where else None
        verdict = self._verdict(hits, searched)
        return Found(hits, searched, where is not None, why, (), {}, verdict)

    def _verdict(self, hits: Sequence[Hit], vertical: str | None) -> Verdict | None:
        """Returns whether the nearest hit is considered the same item; None if no threshold."""
        # Thresholds were fitted to distances between images.
        by_item = self.version.settings.index_by == ITEM
        threshold = None if by_item else self._thresholds.get(vertical or ALL)
        if threshold is None:
            return None
        return SAME if hits and hits[0].distance < threshold else SIMILAR

    def _routing(
        self, scores: Sequence[tuple[str, float]], *, is_requested: bool
    ) -> tuple[bool, str]:
        """Returns whether to search only the most probable vertical, and why."""
        if not scores:
            return False, "the model predicts none"
        (name, score), least = scores[0], self.routing_confidence
        if is_requested or (least is not None and score >= least):
            return True, f"predicted, {score:.0%}"
        when = "predictions are not used" if least is None else f"used from {least:.1%} on"
        return False, f"the model predicts {name}, {score:.1%}; {when}"

    def _check(self, vertical: str | None) -> None:
        if vertical is not None and vertical not in self.version.verticals:
            known = ", ".join(self.version.verticals)
            raise UnknownVertical(f"unknown vertical {vertical[:100]!r}; expected one of {known}")

    def _ranked(self, scores: np.ndarray | None) -> tuple[tuple[str, float], ...]:
        """Returns the scores of the verticals in the index, most probable first."""
        every = () if scores is None else zip(self._model.verticals, scores.tolist())
        known = [pair for pair in every if pair[0] in self.version.verticals]
        return tuple(sorted(known, key=lambda pair: -pair[1]))


def parse_box(text: str) -> Box | None:
    """Returns a box from `x_min,y_min,x_max,y_max`; None from an empty text.

    Raises:
      ValueError: if the text is not a box; the message names the expected format.
    """
    if not text.strip():
        return None
    edges = [_EDGE.fullmatch(edge) for edge in text.split(",")]
    if len(edges) != 4 or None in edges:
        raise ValueError("expected a box x_min,y_min,x_max,y_max in pixels")
    x_min, y_min, x_max, y_max = (float(edge.group(1)) for edge in edges if edge)
    if not (x_min < x_max and y_min < y_max):
        raise ValueError("the box is empty; expected x_min < x_max and y_min < y_max")
    return x_min, y_min, x_max, y_max
