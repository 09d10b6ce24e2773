"""From an uploaded image to hits: crop, embed, route to a vertical, ask the index."""

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
# Of a photograph that garments are sought in: pixels enough for each.
_PHOTOGRAPH_SIDE = 1024
_EDGE = re.compile(r"\s*(-?\d{1,7}(?:\.\d{1,20})?)\s*", re.ASCII)


class NoGarment(Exception):
    """The model could not embed an image."""


class UnknownImage(Exception):
    """No image of the index has this key."""


class UnknownVertical(Exception):
    """The index has no such vertical; the message lists those there are."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
      hits: nearest first.
      vertical: that was searched in; None for all.
      predicted: whether the model chose that vertical; those that it does not know were searched,
        too.
      why: there, in a few words; such as `predicted, 97%`.
      scores: (vertical, probability), most probable first; () if the model has none.
      seconds: by step: `prepare`, `embed`, `search`.
      verdict: whether the nearest image is taken for the same item, `SAME` or `SIMILAR`; None if
        the searcher has no threshold there, or several images were searched by.
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
        """Where was searched, "ALL" for everywhere, and the verdict, if there is one."""
        return [(self.vertical or ALL, self.verdict)] if self.verdict else []

    @property
    def about(self) -> dict[str, Any]:
        """What the log says of it."""
        return {"vertical": self.vertical, "hits": len(self.hits)}


@dataclasses.dataclass(frozen=True)
class Garment:
    """A garment in a photograph.

    Attributes:
      box: where, in pixels of the upright image.
      score: of the detector, 0 to 1.
      vertical: that the detector sees.
      found: items like it; None if they were not asked for.
    """

    box: Box
    score: float
    vertical: str
    found: Found | None


@dataclasses.dataclass(frozen=True)
class Photograph:
    """The garments that were found in a photograph.

    Attributes:
      width: of the upright image in pixels.
      height: of the upright image in pixels.
      garments: highest score first.
      seconds: by step: `prepare`, `detect`, and `search` of all garments.
    """

    width: int
    height: int
    garments: list[Garment]
    seconds: dict[str, float]

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """Those of all garments, see `Found.verdicts`."""
        return [one for garment in self.garments if garment.found for one in garment.found.verdicts]

    @property
    def about(self) -> dict[str, Any]:
        """What the log says of it."""
        return {"garments": len(self.garments)}


class Searcher:
    """Searches by image; may be called from several threads.

    Args:
      index: where to search.
      version: whose embeddings `model` makes; complete.
      model: embeds, here or elsewhere.
      settings: how images are prepared, the same as those of the index were.
      routing_confidence: score of a vertical from which on it is searched alone, unless the caller
        says otherwise; None for never.
      thresholds: distances of the nearest image, by vertical and "ALL", below which it is taken for
        the same item; None where there are none for this model and index.
    """

    def __init__(
        self,
        index: VectorIndex,
        version: Version,
        model: ServedModel,
        settings: ImageSettings,
        routing_confidence: float | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.index = index
        self.version = version
        self.routing_confidence = routing_confidence
        self._thresholds = thresholds or {}
        self._model = model
        self._settings = settings
        nothing = model.embed([])
        self.dim = nothing.embeddings.shape[1]
        # A model without a vertical head knows its verticals, too, but predicts no image's.
        self.predicts = nothing.vertical_scores is not None
        self.detects = model.detects
        # Images of recent hits are asked for next: these need not ask the index again.
        self._recent: collections.OrderedDict[str, IndexedImage] = collections.OrderedDict()
        self._lock = threading.Lock()

    def refresh(self) -> Version:
        """Reads what another process has changed meanwhile, such as a new vertical; returns it."""
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
        """Finds items like the one in an image, or in several of one garment.

        Args:
          encoded: an image of any format that `prepare_image` knows; or several, which are
            searched by their mean, up to `Limits.max_images`.
          k: how many items.
          box: where the garment is, in pixels of the upright image; None for all of it, as it must
            be with several.
          vertical: to search in; None for what `all_verticals` says.
          all_verticals: True for all; False for the one that the model predicts and those that it
            does not know, or for all if it predicts none. None for what was measured to find more:
            the predicted one from the routing confidence on, otherwise all.

        Raises:
          RejectedImage: no usable image, or not a usable number of them.
          NoGarment: the model could not embed it.
          UnknownVertical: the index has no such vertical.
        """
        self.refresh()
        self._check(vertical)
        several = [encoded] if isinstance(encoded, bytes) else encoded
        if not 1 <= len(several) <= (1 if box else Limits.max_images):
            allowed = "1, as there is a box" if box else f"1 to {Limits.max_images}"
            raise RejectedImage(f"{len(several)} images; expected {allowed}")
        times = [time.perf_counter()]
        jpegs = [prepare_image(one, self._settings, box).jpeg for one in several]
        times.append(time.perf_counter())
        embeddings, valid, all_scores = self._model.embed(jpegs)
        times.append(time.perf_counter())
        if not valid.all():
            raise NoGarment("the model could not embed this image")
        embedding = embeddings[0]
        if len(jpegs) > 1:
            (embedding,) = mean_vectors(embeddings, np.zeros(len(jpegs), np.int64))
        scores = self._ranked(None if all_scores is None else np.mean(all_scores, axis=0))
        predicted, why = False, "as asked"
        if vertical is None and not all_verticals:
            predicted, why = self._routing(scores, is_asked=all_verticals is not None)
        also: tuple[str, ...] = ()
        if predicted:
            vertical, also = scores[0][0], self.version.unknown_verticals(self._model.verticals)
        hits = self._hits(embedding, k, None if vertical is None else (vertical, *also))
        times.append(time.perf_counter())
        seconds = dict(zip(("prepare", "embed", "search"), np.diff(times).tolist()))
        # Means lie nearer to everything than the images that thresholds were fitted to.
        verdict = self._verdict(hits, vertical) if len(jpegs) == 1 else None
        return Found(hits, vertical, predicted, why, scores, seconds, verdict)

    def detect(self, encoded: bytes, k: int = 0, all_verticals: bool = False) -> Photograph:
        """Finds the garments in a photograph, and items like each.

        Args:
          encoded: an image of any format that `prepare_image` knows.
          k: how many items for each garment; 0 for none.
          all_verticals: search in all; otherwise in the one that the detector sees and those that
            the model does not know, or in all if the index has no such vertical.

        Raises:
          RejectedImage: no usable image.
          NoGarment: the model could not read it.
          UserError: the model has no detector.
        """
        self.refresh()
        times = [time.perf_counter()]
        settings = dataclasses.replace(self._settings, max_side=_PHOTOGRAPH_SIDE)
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
        """Finds items like one of the index, which itself is left out.

        Args:
          key: of the image.
          k: how many items.
          vertical: to search in; None for that of the image.
          all_verticals: search in all.

        Raises:
          UnknownImage: no image has this key.
          UnknownVertical: the index has no such vertical.
        """
        self.refresh()
        self._check(vertical)
        why = "as asked" if vertical or all_verticals else "that of the image"
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
        """Returns what is known of an image of the index; None if it is not there."""
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
        """Returns items like a garment that was detected."""
        where, why = None, f"the index has no {vertical}"
        if all_verticals:
            why = "as asked"
        elif vertical in self.version.verticals:
            where = (vertical, *self.version.unknown_verticals(self._model.verticals))
            why = f"detected, {score:.0%}"
        hits, searched = self._hits(embedding, k, where), where[0] if where else None
        verdict = self._verdict(hits, searched)
        return Found(hits, searched, where is not None, why, (), {}, verdict)

    def _verdict(self, hits: Sequence[Hit], vertical: str | None) -> Verdict | None:
        """Returns whether the nearest hit is taken for the same item; None without evidence."""
        # They were fitted to distances from images.
        by_item = self.version.settings.index_by == ITEM
        threshold = None if by_item else self._thresholds.get(vertical or ALL)
        if threshold is None:
            return None
        return SAME if hits and hits[0].distance < threshold else SIMILAR

    def _routing(self, scores: Sequence[tuple[str, float]], *, is_asked: bool) -> tuple[bool, str]:
        """Returns whether the most probable vertical is searched, and why or why not."""
        if not scores:
            return False, "the model predicts none"
        (name, score), least = scores[0], self.routing_confidence
        if is_asked or (least is not None and score >= least):
            return True, f"predicted, {score:.0%}"
        when = "its predictions are not followed" if least is None else f"followed from {least:.1%}"
        return False, f"the model sees {name}, {score:.1%}; {when}"

    def _check(self, vertical: str | None) -> None:
        if vertical is not None and vertical not in self.version.verticals:
            known = ", ".join(self.version.verticals)
            raise UnknownVertical(f"unknown vertical {vertical[:100]!r}; there are {known}")

    def _ranked(self, scores: np.ndarray | None) -> tuple[tuple[str, float], ...]:
        """Returns the scores of verticals that the index has, most probable first."""
        every = () if scores is None else zip(self._model.verticals, scores.tolist())
        known = [pair for pair in every if pair[0] in self.version.verticals]
        return tuple(sorted(known, key=lambda pair: -pair[1]))


def parse_box(text: str) -> Box | None:
    """Returns a box from `x_min,y_min,x_max,y_max`; None from an empty text.

    Raises:
      ValueError: the message says what is allowed.
    """
    if not text.strip():
        return None
    edges = [_EDGE.fullmatch(edge) for edge in text.split(",")]
    if len(edges) != 4 or None in edges:
        raise ValueError("the box is not x_min,y_min,x_max,y_max in pixels")
    x_min, y_min, x_max, y_max = (float(edge.group(1)) for edge in edges if edge)
    if not (x_min < x_max and y_min < y_max):
        raise ValueError("the box is empty; x_min < x_max and y_min < y_max are needed")
    return x_min, y_min, x_max, y_max
