"""The search service: HTTP around a `Searcher`, and the page that asks it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import math
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any, Optional

from fastapi import FastAPI, File, Form, HTTPException, Path, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import RejectedPicture
from apparel_embed.search.boxes import parse_box
from apparel_embed.search.limits import Gate, Limits
from apparel_embed.search.observe import LOGGER, Metrics, Observe
from apparel_embed.search.pictures import PictureSource
from apparel_embed.search.searcher import (
    Found,
    NoGarment,
    Searcher,
    UnknownPicture,
    UnknownVertical,
)

MOST_HITS = 100
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_KEPT = {"Cache-Control": "private, max-age=3600"}


class HitAnswer(BaseModel):
    """A picture that was found."""

    key: str = Field(description="identifies the picture in /pictures/{key} and /api/similar")
    item: str = Field(description="id of the garment")
    vertical: str
    picture: str = Field(description="path or URI in the manifest")
    distance: float = Field(description="Euclidean between unit vectors, 0 to 2")


class ScoreAnswer(BaseModel):
    """How probable a vertical is."""

    vertical: str
    score: float = Field(description="probability, 0 to 1")


class SearchAnswer(BaseModel):
    """What a search found."""

    hits: list[HitAnswer] = Field(description="nearest first, of every item its nearest picture")
    # pydantic evaluates this, and Python 3.9 knows no `str | None`.
    vertical: Optional[str] = Field(description="that was searched in; null for all")  # noqa: UP045
    predicted: bool = Field(description="whether the model chose the vertical")
    why: str = Field(description="searched there; such as `predicted, 97%`")
    scores: list[ScoreAnswer] = Field(description="most probable first; empty if not known")
    milliseconds: dict[str, float] = Field(description="by step, and `total`")
    model: str = Field(description="fingerprint of the model")


class InfoAnswer(BaseModel):
    """What the service knows and allows."""

    verticals: list[str]
    pictures: int = Field(description="in the index")
    model: str = Field(description="fingerprint of the model")
    predicts: bool = Field(description="whether the model tells a picture's vertical")
    routing_confidence: Optional[float] = Field(  # noqa: UP045
        description="from which on the predicted vertical is searched alone; null for never"
    )
    examples: int = Field(description="pictures to try, /examples/0 and on")
    max_bytes: int = Field(description="of an upload")
    max_pixels: int = Field(description="of an upload")
    version: str = Field(description="of the service")


def create_app(
    searcher: Searcher,
    pictures: PictureSource,
    *,
    limits: Limits,
    examples: list[Callable[[], bytes]] | None = None,
) -> FastAPI:
    """Makes the service.

    Args:
      searcher: that answers.
      pictures: of the catalogue.
      limits: what is allowed.
      examples: each gives the JPEG of a picture to try.
    """
    # Their pages load scripts from elsewhere, which the page's policy forbids.
    app = FastAPI(
        title="apparel_embed visual search",
        version=__version__,
        description="Finds the garments of a catalogue that look like the one in a picture.",
        docs_url=None,
        redoc_url=None,
    )
    metrics = Metrics()
    metrics.pictures.set(searcher.version.pictures)
    app.add_middleware(
        Gate, limits=limits, refused=lambda reason: metrics.refused.labels(reason).inc()
    )
    app.add_middleware(Observe, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    _add_page(app)
    _add_health(app, searcher, metrics)
    _add_pictures(app, searcher, pictures, examples or [])
    _add_searches(app, searcher, limits, metrics, len(examples or []))
    return app


def _add_page(app: FastAPI) -> None:
    directory = resources.files("apparel_embed.search") / "page"
    for route, (name, kind) in _PAGE.items():
        answer = functools.partial(Response, (directory / name).read_bytes(), media_type=kind)
        app.add_api_route(route, _without_arguments(answer), include_in_schema=False)


def _without_arguments(make: Callable[[], Response]) -> Callable[[], Any]:
    # A named function: FastAPI would take the partial's arguments for parameters of the request.
    async def page() -> Response:
        return make()

    return page


def _add_health(app: FastAPI, searcher: Searcher, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether the process answers", tags=["operation"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        summary="Whether searches can be answered: the index does",
        tags=["operation"],
        responses={503: {"description": "the index does not answer"}},
    )
    def readyz() -> dict[str, str]:
        try:
            current = searcher.index.current()
        except UserError as error:
            raise HTTPException(503, "the index does not answer") from error
        if current and current.model != searcher.version.model:
            # The old model's pictures still answer right; a restart follows the switch.
            return {"status": "ok", "note": "the index was switched to another model; restart"}
        return {"status": "ok"}

    @app.get("/metrics", summary="Prometheus metrics", tags=["operation"])
    def tell_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_pictures(
    app: FastAPI,
    searcher: Searcher,
    pictures: PictureSource,
    examples: list[Callable[[], bytes]],
) -> None:
    jpeg: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/jpeg": {}}},
        404: {"description": "no such picture"},
    }

    @app.get(
        "/pictures/{key}",
        summary="A picture of the index",
        tags=["pictures"],
        response_class=Response,
        responses=jpeg,
    )
    def picture(key: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Response:
        known = searcher.picture(key)
        found = pictures.jpeg(known) if known else None
        if found is None:
            raise HTTPException(404, "no such picture")
        return Response(found, media_type="image/jpeg", headers=_KEPT)

    @app.get(
        "/examples/{number}",
        summary="A picture to try the search with",
        tags=["pictures"],
        response_class=Response,
        responses=jpeg,
    )
    def example(number: Annotated[int, Path(ge=0, le=10_000)]) -> Response:
        if number >= len(examples):
            raise HTTPException(404, "no such example")
        return Response(examples[number](), media_type="image/jpeg", headers=_KEPT)


def _add_searches(
    app: FastAPI, searcher: Searcher, limits: Limits, metrics: Metrics, examples: int
) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(limits.workers, "search")
    responses: dict[int | str, dict[str, Any]] = {
        401: {"description": "an API key is needed"},
        413: {"description": "the picture is too large"},
        422: {"description": "no usable picture, or a wrong parameter"},
        429: {"description": "too many searches from this client; see Retry-After"},
        503: {"description": "too many searches at once; see Retry-After"},
    }

    async def answer(request: Request, search: Callable[[], Found]) -> SearchAnswer:
        try:
            found = await asyncio.get_running_loop().run_in_executor(pool, search)
        except UnknownPicture as error:
            raise HTTPException(404, str(error)) from error
        except (RejectedPicture, NoGarment, UnknownVertical) as error:
            raise HTTPException(422, str(error)) from error
        except UserError as error:
            LOGGER.error("the search cannot be answered: %s", error)
            raise HTTPException(503, "the index or the model does not answer") from error
        for step, seconds in found.seconds.items():
            metrics.step_seconds.labels(step).observe(seconds)
        request.state.about = {"vertical": found.vertical, "hits": len(found.hits)}
        return _answer(found, searcher.version.model)

    @app.get("/api/info", summary="What the service knows and allows", tags=["search"])
    async def info() -> InfoAnswer:
        version = searcher.version
        return InfoAnswer(
            verticals=list(version.verticals),
            pictures=version.pictures,
            model=version.model,
            predicts=searcher.predicts,
            routing_confidence=searcher.routing_confidence,
            examples=examples,
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            version=__version__,
        )

    @app.post("/api/search", summary="Search by a picture", tags=["search"], responses=responses)
    async def search(
        request: Request,
        file: Annotated[
            UploadFile, File(description="JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF")
        ],
        box: Annotated[
            str, Form(max_length=200, description="x_min,y_min,x_max,y_max: pixels, upright")
        ] = "",
        vertical: Annotated[
            str,
            Form(max_length=1024, description="to search in; by default what all_verticals says"),
        ] = "",
        all_verticals: Annotated[
            Optional[bool],  # noqa: UP045
            Form(
                description="true: search in all; false: in the predicted one; by default in the "
                "predicted one from the routing confidence on, otherwise in all"
            ),
        ] = None,
        k: Annotated[int, Form(ge=1, le=MOST_HITS, description="items to find")] = 12,
    ) -> SearchAnswer:
        try:
            wanted = parse_box(box)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        encoded = await file.read(limits.max_bytes + 1)
        if len(encoded) > limits.max_bytes:
            raise HTTPException(
                413, f"the picture is too large; allowed are {limits.max_bytes / 1e6:g} MB"
            )
        return await answer(
            request,
            functools.partial(
                searcher.search_bytes,
                encoded,
                k,
                box=wanted,
                vertical=vertical or None,
                all_verticals=all_verticals,
            ),
        )

    @app.get(
        "/api/similar",
        summary="Search by a picture of the index",
        tags=["search"],
        responses={404: {"description": "no such picture"}, **responses},
    )
    async def similar(
        request: Request,
        key: Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="of the picture")],
        vertical: Annotated[
            str, Query(max_length=1024, description="to search in; by default the picture's own")
        ] = "",
        all_verticals: Annotated[bool, Query(description="search in all")] = False,
        k: Annotated[int, Query(ge=1, le=MOST_HITS, description="items to find")] = 12,
    ) -> SearchAnswer:
        return await answer(
            request,
            functools.partial(
                searcher.search_key,
                key,
                k,
                vertical=vertical or None,
                all_verticals=all_verticals,
            ),
        )


def _answer(found: Found, model: str) -> SearchAnswer:
    times = {step: round(1000 * seconds, 2) for step, seconds in found.seconds.items()}
    return SearchAnswer(
        hits=[
            HitAnswer(
                key=hit.picture.key,
                item=hit.picture.item,
                vertical=hit.picture.vertical,
                picture=hit.picture.picture,
                distance=round(hit.distance, 6),
            )
            for hit in found.hits
        ],
        vertical=found.vertical,
        predicted=found.predicted,
        why=found.why,
        scores=[ScoreAnswer(vertical=name, score=round(score, 4)) for name, score in found.scores],
        milliseconds={**times, "total": round(math.fsum(times.values()), 2)},
        model=model,
    )


async def _tell_invalid(request: Request, error: Exception) -> JSONResponse:
    """Says in one line what is wrong, without the input, which may be no text at all."""
    del request
    assert isinstance(error, RequestValidationError)
    told = [
        f"{'.'.join(str(part) for part in one['loc'][1:]) or one['loc'][0]}: {_reason(one)}"
        for one in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(told)[:1000]}, 422)


def _reason(error: dict[str, Any]) -> str:
    # A part of a form without a file name is no file, for which pydantic names a Python class.
    if "UploadFile" in error["msg"]:
        return "is no file; send it with a file name"
    return str(error["msg"])
