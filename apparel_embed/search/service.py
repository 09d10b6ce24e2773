"""The search service: an HTTP interface to a `Searcher`, and the search page."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Optional, TypeVar

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    File,
    Form,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.utils import generate_unique_id
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.data.images import RejectedImage
from apparel_embed.search.answers import (
    DetectAnswer,
    InfoAnswer,
    SearchAnswer,
    SearchGarmentsAnswer,
    detect_answer,
    search_answer,
    search_garments_answer,
)
from apparel_embed.search.config import Limits
from apparel_embed.search.index import IndexedImage
from apparel_embed.search.limits import Gate, too_large
from apparel_embed.search.observe import LOGGER, Metrics, Observe
from apparel_embed.search.searcher import (
    Found,
    NoGarment,
    Photograph,
    Searcher,
    UnknownImage,
    UnknownVertical,
    parse_box,
)

MOST_HITS = 100
_PAGE = {
    "/": "index.html",
    **{f"/{name}": name for name in ("app.css", "app.js", "boxes.js", "icon.svg")},
}
_KEPT = {"Cache-Control": "private, max-age=3600"}
_JPEG: dict[str, Any] = {
    "tags": ["images"],
    "response_class": Response,
    "responses": {
        200: {"content": {"image/jpeg": {}}},
        404: {"description": "no such image"},
    },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "an API key is required"},
    408: {"description": "the upload took too long"},
    413: {"description": "the image is too large"},
    422: {"description": "unusable image or invalid parameter"},
    429: {"description": "too many searches from this client; see Retry-After"},
    503: {"description": "too many concurrent searches; see Retry-After"},
}
_DETECTIONS = {404: {"description": "the model has no detector"}, **_REFUSALS}
_ROUTER = APIRouter()
_Answer = TypeVar("_Answer", Found, Photograph)
_FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF"
_File = Annotated[UploadFile, File(description=_FORMATS)]
_Files = Annotated[
    list[UploadFile],
    File(description=f"{_FORMATS}; may be repeated, up to {Limits.max_images} of one garment"),
]


@dataclasses.dataclass(frozen=True)
class Service:
    """Everything that request handlers need.

    Attributes:
      searcher: runs the searches.
      read_image: returns an image of the index as JPEG; None if it is missing.
      limits: limits of the service.
      examples: functions that return the JPEG of an image to try.
      metrics: Prometheus metrics.
    """

    searcher: Searcher
    read_image: Callable[[IndexedImage], bytes | None]
    limits: Limits
    examples: Sequence[Callable[[], bytes]] = ()
    metrics: Metrics = dataclasses.field(default_factory=Metrics)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.limits.workers, "search")

    async def search(self, request: Request, call: Callable[[], _Answer]) -> _Answer:
        """Runs a search or detection in a worker thread and returns its result."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except UnknownImage as error:
            raise HTTPException(404, str(error)) from error
        except (RejectedImage, NoGarment, UnknownVertical) as error:
            raise HTTPException(422, str(error)) from error
        except UserError as error:
            LOGGER.error("the search failed: %s", error)
            raise HTTPException(503, "the index or the model is not available") from error
        for step, seconds in found.seconds.items():
            self.metrics.step_seconds.labels(step).observe(seconds)
        for verdict in found.verdicts:
            self.metrics.verdicts.labels(*verdict).inc()
        request.state.about = found.about
        return found

    async def detect(
        self, request: Request, file: UploadFile, k: int = 0, all_verticals: bool = False
    ) -> Photograph:
        """Returns the garments in a photograph; see `Searcher.detect`."""
        if not self.searcher.detects:
            raise HTTPException(404, "the model was exported without a detector")
        encoded = await self.read(file)
        return await self.search(
            request, lambda: self.searcher.detect(encoded, k, all_verticals=all_verticals)
        )

    async def read_all(self, request: Request, files: Sequence[UploadFile]) -> list[bytes]:
        """Returns the bytes of uploaded images; each counts as one search for the rate limit."""
        most = self.limits.max_images
        if len(files) > most:
            raise HTTPException(422, f"{len(files)} images; expected 1 to {most}")
        wait = request.state.count_more(len(files) - 1)
        if wait:
            detail = "too many searches from this client; each image counts as one; retry"
            raise HTTPException(429, detail, {"Retry-After": str(wait)})
        return [await self.read(file) for file in files]

    async def read(self, file: UploadFile) -> bytes:
        """Returns the bytes of an uploaded image."""
        encoded = await file.read()
        if len(encoded) > self.limits.max_bytes:
            raise HTTPException(413, too_large(self.limits))
        return encoded


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


_ServiceDependency = Annotated[Service, Depends(_service)]


def create_app(service: Service) -> FastAPI:
    """Returns the HTTP application of a service."""
    # No /docs and /redoc: they load scripts from other sites, which the security policy forbids.
    app = FastAPI(
        title="apparel_embed visual search",
        version=__version__,
        description="Finds the garments of a catalogue that look like the one in an image.",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: generate_unique_id(route).lstrip("_"),
    )
    app.state.service = service
    metrics = service.metrics
    app.add_middleware(
        Gate, limits=service.limits, refused=lambda reason: metrics.refused.labels(reason).inc()
    )
    app.add_middleware(Observe, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    for route, name in _PAGE.items():
        app.add_api_route(route, _file_of_page(name), include_in_schema=False)
    app.include_router(_ROUTER)
    return app


def _file_of_page(name: str) -> Callable[[], FileResponse]:
    path = pathlib.Path(__file__).parent / "page" / name

    def page() -> FileResponse:
        return FileResponse(path)

    return page


@_ROUTER.get("/healthz", summary="Whether the process is alive", tags=["operation"])
async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


@_ROUTER.get(
    "/readyz",
    summary="Whether searches can be answered, i.e. the index is available",
    tags=["operation"],
    responses={503: {"description": "the index is not available"}},
)
def _readyz(service: _ServiceDependency) -> dict[str, str]:
    try:
        current = service.searcher.index.current()
    except UserError as error:
        raise HTTPException(503, "the index is not available") from error
    if current and current.model != service.searcher.version.model:
        # The old version is still complete, so searches stay correct until a restart.
        return {"status": "ok", "note": "the index was switched to another model; restart"}
    return {"status": "ok"}


@_ROUTER.get("/metrics", summary="Prometheus metrics", tags=["operation"])
def _tell_metrics(service: _ServiceDependency) -> Response:
    # If the index is not available, the last known count is reported.
    with contextlib.suppress(UserError):
        service.searcher.refresh()
    service.metrics.images.set(service.searcher.version.images)
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@_ROUTER.get("/images/{key}", summary="An image of the index", **_JPEG)
def _image(
    service: _ServiceDependency, key: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
) -> Response:
    known = service.searcher.image(key)
    found = service.read_image(known) if known else None
    if found is None:
        raise HTTPException(404, "no such image")
    return Response(found, media_type="image/jpeg", headers=_KEPT)


@_ROUTER.get("/examples/{number}", summary="An image to try the search with", **_JPEG)
def _example(
    service: _ServiceDependency, number: Annotated[int, Path(ge=0, le=10_000)]
) -> Response:
    if number >= len(service.examples):
        raise HTTPException(404, "no such example")
    return Response(service.examples[number](), media_type="image/jpeg", headers=_KEPT)


@_ROUTER.get("/api/info", summary="The index, model and limits of the service", tags=["search"])
def _info(service: _ServiceDependency) -> InfoAnswer:
    version = service.searcher.refresh()
    return InfoAnswer(
        verticals=list(version.verticals),
        images=version.images,
        model=version.model,
        predicts=service.searcher.predicts,
        detects=service.searcher.detects,
        routing_confidence=service.searcher.routing_confidence,
        examples=len(service.examples),
        max_bytes=service.limits.max_bytes,
        max_pixels=service.limits.max_pixels,
        max_images=service.limits.max_images,
        version=__version__,
    )


@_ROUTER.post(
    "/api/search",
    summary="Search by an image, or by several images of one garment",
    tags=["search"],
    responses=_REFUSALS,
)
async def _search(
    request: Request,
    service: _ServiceDependency,
    file: _Files,
    box: Annotated[
        str,
        Form(max_length=200, description="x_min,y_min,x_max,y_max in pixels of the upright image"),
    ] = "",
    vertical: Annotated[
        str, Form(max_length=1024, description="vertical to search; by default see all_verticals")
    ] = "",
    all_verticals: Annotated[
        Optional[bool],  # noqa: UP045
        Form(
            description="true: search all; false: search the predicted vertical; by default, "
            "search the predicted one from the routing confidence on, otherwise all"
        ),
    ] = None,
    k: Annotated[int, Form(ge=1, le=MOST_HITS, description="number of items to find")] = 12,
) -> SearchAnswer:
    try:
        wanted = parse_box(box)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    arguments = await service.read_all(request, file), k, wanted, vertical or None, all_verticals
    found = await service.search(request, lambda: service.searcher.search_bytes(*arguments))
    return search_answer(found, service.searcher.version.model)


@_ROUTER.post(
    "/api/detect",
    summary="Find the garments in a photograph",
    tags=["search"],
    responses=_DETECTIONS,
)
async def _detect(request: Request, service: _ServiceDependency, file: _File) -> DetectAnswer:
    photograph = await service.detect(request, file)
    return detect_answer(photograph, service.searcher.version.model)


@_ROUTER.post(
    "/api/search_garments",
    summary="Search by each garment in a photograph, in its vertical",
    tags=["search"],
    responses=_DETECTIONS,
)
async def _search_garments(
    request: Request,
    service: _ServiceDependency,
    file: _File,
    all_verticals: Annotated[bool, Form(description="search all verticals")] = False,
    k: Annotated[int, Form(ge=1, le=MOST_HITS, description="number of items per garment")] = 12,
) -> SearchGarmentsAnswer:
    photograph = await service.detect(request, file, k, all_verticals)
    return search_garments_answer(photograph, service.searcher.version.model)


@_ROUTER.get(
    "/api/similar",
    summary="Search by an image of the index",
    tags=["search"],
    responses={404: {"description": "no such image"}, **_REFUSALS},
)
async def _similar(
    request: Request,
    service: _ServiceDependency,
    key: Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="key of the image")],
    vertical: Annotated[
        str, Query(max_length=1024, description="vertical to search; by default the image's own")
    ] = "",
    all_verticals: Annotated[bool, Query(description="search all verticals")] = False,
    k: Annotated[int, Query(ge=1, le=MOST_HITS, description="number of items to find")] = 12,
) -> SearchAnswer:
    arguments = key, k, vertical or None, all_verticals
    found = await service.search(request, lambda: service.searcher.search_key(*arguments))
    return search_answer(found, service.searcher.version.model)


async def _refuse_invalid(request: Request, error: Exception) -> JSONResponse:
    """Returns the validation errors in one line, without the input, which may be binary."""
    del request
    assert isinstance(error, RequestValidationError)
    messages = []
    for one in error.errors():
        # A form part without a file name is not a file; pydantic's message names a Python class.
        is_file = "UploadFile" in one["msg"]
        reason = "not a file; send it with a file name" if is_file else one["msg"]
        names = [part for part in one["loc"][1:] if isinstance(part, str)]
        messages.append(f"{'.'.join(names) or one['loc'][0]}: {reason}")
    return JSONResponse({"detail": "; ".join(messages)[:1000]}, 422)
