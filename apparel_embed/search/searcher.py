"""From an uploaded picture to hits: crop, embed, route to a vertical, ask the index."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import Box, PictureSettings, prepare_picture
from apparel_embed.search.build import saved_model_fingerprint
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.version import Hit, IndexedPicture, Version, unknown_verticals
from apparel_embed.serving.embeddings import Embeddings
from apparel_embed.serving.versions import saved_model_versions

_KNOWN_PICTURES = 10_000


class Embedder(Protocol):
    """A SavedModel in this process, or a client of a server."""

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals, in the order of scores."""

    def embed(self, pictures: Sequence[bytes]) -> Embeddings:
        """Embeds encoded pictures."""


class NoGarment(Exception):
    """The model could not embed a picture."""


class UnknownPicture(Exception):
    """No picture of the index has this key."""


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
    """

    hits: list[Hit]
    vertical: str | None
    predicted: bool
    why: str
    scores: tuple[tuple[str, float], ...]
    seconds: dict[str, float]


class Searcher:
    """Searches by picture; may be called from several threads.

    Args:
      index: where to search.
      version: whose embeddings `embedder` makes; complete.
      embedder: a model, here or elsewhere.
      settings: how pictures are prepared, the same as those of the index were.
      routing_confidence: score of a vertical from which on it is searched alone, unless the caller
        says otherwise; None for never.
    """

    def __init__(
        self,
        index: VectorIndex,
        version: Version,
        embedder: Embedder,
        settings: PictureSettings,
        routing_confidence: float | None = None,
    ) -> None:
        self.index = index
        self.version = version
        self._embedder = embedder
        self._settings = settings
        self.routing_confidence = routing_confidence
        # A model without a vertical head knows its verticals, too, but tells no picture's.
        self._scores_verticals = embedder.embed([]).vertical_scores is not None
        # Pictures of recent hits are asked for next: these need not ask the index again.
        self._recent: collections.OrderedDict[str, IndexedPicture] = collections.OrderedDict()
        self._lock = threading.Lock()

    @property
    def predicts(self) -> bool:
        """Whether the model tells a picture's vertical."""
        return self._scores_verticals

    @property
    def unknown_verticals(self) -> tuple[str, ...]:
        """Verticals of the index that the model never predicts."""
        return unknown_verticals(self.version, self._embedder.verticals)

    def search_bytes(
        self,
        encoded: bytes,
        k: int,
        *,
        box: Box | None = None,
        vertical: str | None = None,
        all_verticals: bool | None = None,
    ) -> Found:
        """Finds items like the one in a picture.

        Args:
          encoded: a picture of any format that `prepare_picture` knows.
          k: how many items.
          box: where the garment is, in pixels of the upright picture; None for all of it.
          vertical: to search in; None for what `all_verticals` says.
          all_verticals: True for all; False for the one that the model predicts and those that it
            does not know, or for all if it predicts none: where it is wrong about the vertical,
            nothing that is right is found. None for what was measured to find more: the predicted
            one from the routing confidence on, otherwise all.

        Raises:
          RejectedPicture: no usable picture.
          NoGarment: the model could not embed it.
          UnknownVertical: the index has no such vertical.
        """
        self._check(vertical)
        start = time.perf_counter()
        picture = prepare_picture(encoded, self._settings, box)
        prepared = time.perf_counter()
        embeddings, valid, all_scores = self._embedder.embed([picture.jpeg])
        embedded = time.perf_counter()
        if not valid[0]:
            raise NoGarment("the model can make nothing of this picture")
        scores = self._ranked(None if all_scores is None else all_scores[0])
        predicted, why = False, "as asked"
        if vertical is None and not all_verticals:
            predicted, why = self._routing(scores, is_asked=all_verticals is not None)
        also: tuple[str, ...] = ()
        if predicted:
            vertical, also = scores[0][0], self.unknown_verticals
        wanted = (vertical, *also) if vertical is not None else None
        hits = self._hits(embeddings[0], k, wanted)
        return Found(
            hits,
            vertical,
            predicted,
            why,
            scores,
            {
                "prepare": prepared - start,
                "embed": embedded - prepared,
                "search": time.perf_counter() - embedded,
            },
        )

    def search_key(
        self, key: str, k: int, *, vertical: str | None = None, all_verticals: bool = False
    ) -> Found:
        """Finds items like one of the index, which itself is left out.

        Args:
          key: of the picture.
          k: how many items.
          vertical: to search in; None for that of the picture, which nobody has to predict.
          all_verticals: search in all.

        Raises:
          UnknownPicture: no picture has this key.
          UnknownVertical: the index has no such vertical.
        """
        self._check(vertical)
        why = "as asked" if vertical or all_verticals else "that of the picture"
        start = time.perf_counter()
        found = self.index.picture(self.version, key)
        if found is None:
            raise UnknownPicture(f"no picture {key[:32]!r} in the index")
        picture, embedding = found
        vertical = None if all_verticals else (vertical or picture.vertical)
        wanted = (vertical,) if vertical is not None else None
        hits = self._hits(embedding, k, wanted, without=key)
        return Found(hits, vertical, False, why, (), {"search": time.perf_counter() - start})

    def picture(self, key: str) -> IndexedPicture | None:
        """Returns what is known of a picture of the index; None if it is not there."""
        with self._lock:
            if key in self._recent:
                return self._recent[key]
        found = self.index.picture(self.version, key)
        return found[0] if found else None

    def _hits(
        self, embedding: np.ndarray, k: int, verticals: Sequence[str] | None, without: str = ""
    ) -> list[Hit]:
        hits = self.index.search(
            self.version, embedding, k, vertical=verticals, by_item=True, without=without
        )
        with self._lock:
            for hit in hits:
                self._recent[hit.picture.key] = hit.picture
                self._recent.move_to_end(hit.picture.key)
            while len(self._recent) > _KNOWN_PICTURES:
                self._recent.popitem(last=False)
        return hits

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
        if scores is None:
            return ()
        known = [
            (name, float(score))
            for name, score in zip(self._embedder.verticals, scores)
            if name in self.version.verticals
        ]
        return tuple(sorted(known, key=lambda pair: -pair[1]))


def answering_version(index: VectorIndex, saved_model: Path) -> Version:
    """Returns the version that answers, if a model's embeddings may be compared with it.

    Raises:
      UserError: if none answers, or one of another model.
    """
    current = index.current()
    if current is None:
        raise UserError("no version of the index is whole; fill it with tools/build_index.py")
    if saved_model_fingerprint(saved_model) != current.model:
        raise UserError(
            f"{saved_model}: is not the model whose pictures the index answers with "
            f"({current.model[:16]}); name that with --saved_model, or index this one's"
        )
    return current


def answering_model(index: VectorIndex, base: Path) -> Path:
    """Returns the version of a SavedModel whose pictures the index answers with.

    Args:
      index: whose current version is looked at.
      base: directory of the model's versions.

    Raises:
      UserError: if there is none.
    """
    current = index.current()
    for path in reversed(saved_model_versions(base)):
        if current and saved_model_fingerprint(path) == current.model:
            logging.info("model %s", path)
            return path
    if current is None:
        raise UserError("no version of the index is whole; fill it with tools/build_index.py")
    raise UserError(
        f"{base}: has no version of the model whose pictures the index answers with "
        f"({current.model[:16]}); index one with tools/build_index.py"
    )
