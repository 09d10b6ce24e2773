"""Response models of the search service, with their OpenAPI descriptions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Optional

from pydantic import BaseModel, Field

from apparel_embed.evaluation.absent import Verdict
from apparel_embed.search.searcher import Found, Garment, Photograph

# pydantic evaluates annotations, and Python 3.9 does not support `str | None`.
_Verdict = Optional[Verdict]
_VERDICT = Field(
    description="whether the nearest image is considered the same item; null if the model has no "
    "threshold for this search"
)


class HitAnswer(BaseModel):
    """A matching image."""

    key: str = Field(description="identifies the image in /images/{key} and /api/similar")
    item: str = Field(description="id of the garment")
    vertical: str
    image: str = Field(description="path or URI in the manifest")
    distance: float = Field(description="Euclidean distance between unit vectors, 0 to 2")


class ScoreAnswer(BaseModel):
    """The probability of a vertical."""

    vertical: str
    score: float = Field(description="probability, 0 to 1")


class SearchAnswer(BaseModel):
    """The result of a search."""

    hits: list[HitAnswer] = Field(description="the nearest image of each item, nearest first")
    vertical: Optional[str] = Field(description="vertical searched; null for all")  # noqa: UP045
    predicted: bool = Field(description="whether the model chose the vertical")
    why: str = Field(description="why this vertical was searched, such as `predicted, 97%`")
    scores: list[ScoreAnswer] = Field(description="most probable first; empty if unknown")
    verdict: _Verdict = _VERDICT
    milliseconds: dict[str, float] = Field(description="per step, and `total`")
    model: str = Field(description="fingerprint of the model")


class InfoAnswer(BaseModel):
    """The index, model and limits of the service."""

    verticals: list[str]
    images: int = Field(description="number of images in the index")
    model: str = Field(description="fingerprint of the model")
    predicts: bool = Field(description="whether the model predicts an image's vertical")
    detects: bool = Field(description="whether the model detects the garments in a photograph")
    routing_confidence: Optional[float] = Field(  # noqa: UP045
        description="score at or above which only the predicted vertical is searched; null: never"
    )
    examples: int = Field(description="number of images to try: /examples/0, /examples/1, ...")
    max_bytes: int = Field(description="maximum bytes of an upload")
    max_pixels: int = Field(description="maximum pixels of an uploaded image")
    max_images: int = Field(description="maximum images of one garment in one search")
    version: str = Field(description="version of the service")


class GarmentAnswer(BaseModel):
    """A garment in a photograph."""

    box: tuple[float, float, float, float] = Field(
        description="x_min,y_min,x_max,y_max in pixels of the upright image"
    )
    score: float = Field(description="score of the detector, 0 to 1")
    vertical: str = Field(description="vertical that the detector predicts")


class SearchedGarmentAnswer(GarmentAnswer):
    """A garment in a photograph, and items like it."""

    hits: list[HitAnswer] = Field(description="the nearest image of each item, nearest first")
    searched: Optional[str] = Field(description="vertical searched; null for all")  # noqa: UP045
    why: str = Field(description="why this vertical was searched, such as `detected, 93%`")
    verdict: _Verdict = _VERDICT


class PhotographAnswer(BaseModel):
    """The fields of every answer about a photograph."""

    width: int = Field(description="width of the upright image in pixels")
    height: int = Field(description="height of the upright image in pixels")
    milliseconds: dict[str, float] = Field(description="per step, and `total`")
    model: str = Field(description="fingerprint of the model")


class DetectAnswer(PhotographAnswer):
    """The garments in a photograph."""

    garments: list[GarmentAnswer] = Field(description="highest score first; may be empty")


class SearchGarmentsAnswer(PhotographAnswer):
    """The garments in a photograph, and items like each."""

    garments: list[SearchedGarmentAnswer] = Field(description="highest score first; may be empty")


def search_answer(found: Found, model: str) -> SearchAnswer:
    """Returns the answer to a search; `model` is the fingerprint of the model."""
    return SearchAnswer(
        hits=_hits(found),
        vertical=found.vertical,
        predicted=found.predicted,
        why=found.why,
        scores=[ScoreAnswer(vertical=name, score=round(score, 4)) for name, score in found.scores],
        verdict=found.verdict,
        milliseconds=_milliseconds(found.seconds),
        model=model,
    )


def detect_answer(photograph: Photograph, model: str) -> DetectAnswer:
    """Returns the garments in a photograph, without hits."""
    garments = [GarmentAnswer(**_facts(garment)) for garment in photograph.garments]
    return DetectAnswer(garments=garments, **_photograph(photograph, model))


def search_garments_answer(photograph: Photograph, model: str) -> SearchGarmentsAnswer:
    """Returns the garments in a photograph and the items like each."""
    garments = [
        SearchedGarmentAnswer(
            **_facts(garment),
            hits=_hits(garment.found),
            searched=garment.found.vertical,
            why=garment.found.why,
            verdict=garment.found.verdict,
        )
        for garment in photograph.garments
        if garment.found
    ]
    return SearchGarmentsAnswer(garments=garments, **_photograph(photograph, model))


def _facts(garment: Garment) -> dict[str, Any]:
    box = tuple(round(edge, 2) for edge in garment.box)
    return {"box": box, "score": round(garment.score, 4), "vertical": garment.vertical}


def _photograph(photograph: Photograph, model: str) -> dict[str, Any]:
    return {
        "width": photograph.width,
        "height": photograph.height,
        "milliseconds": _milliseconds(photograph.seconds),
        "model": model,
    }


def _hits(found: Found) -> list[HitAnswer]:
    return [
        HitAnswer(**dataclasses.asdict(hit.image), distance=round(hit.distance, 6))
        for hit in found.hits
    ]


def _milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    times = {step: round(1000 * taken, 2) for step, taken in seconds.items()}
    return {**times, "total": round(math.fsum(times.values()), 2)}
