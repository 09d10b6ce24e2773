"""What keeps the service up: sizes, rates, numbers at once, and who may ask."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hmac
import math
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apparel_embed.common.settings import setting
from apparel_embed.data.pictures import LARGEST_MAX_PIXELS

# Boundaries and headers of a form, around the picture.
FORM_BYTES = 65_536
_MOST_CLIENTS = 10_000
# Read and thrown away of an upload that is too large, so that the client gets to read why.
_DRAINED_TIMES = 8
# Whoever waits for an answer may ask these.
_OPEN = ("/", "/app.css", "/app.js", "/icon.svg", "/healthz", "/readyz", "/openapi.json")
_SEARCHES = ("/api/search", "/api/similar")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the service allows.

    Attributes:
      max_bytes: of an uploaded picture.
      api_key: that every request but those of the page itself must bring; "" for none.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = setting(
        25_000_000,
        "of an uploaded picture, told before it is decoded",
        1,
        LARGEST_MAX_PIXELS,
        seldom=True,
    )
    rate: float = setting(
        5.0,
        "searches per second that a client may make in the long run, 0 for any number",
        0,
        1_000_000,
    )
    burst: int = setting(20, "searches that a client may make at once", 1, seldom=True)
    workers: int = setting(2, "searches worked on at once", 1, 256)
    waiting: int = setting(
        64,
        "searches that may wait for a worker; more are refused with 503",
        0,
        100_000,
        seldom=True,
    )
    upload_seconds: float = setting(
        30.0, "how long an upload may take, in seconds", 0.1, 3600.0, seldom=True
    )
    api_key: str = ""


class TokenBuckets:
    """Counts how often clients ask: each has `burst` tokens, and gets `rate` new ones a second.

    Args:
      rate: tokens per second, above 0.
      burst: most tokens.
      clock: seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def wait(self, client: str) -> float:
        """Takes a token; returns 0, or the seconds until there is one if there is none now."""
        now = self._clock()
        tokens, before = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        # The ones that asked longest ago are forgotten: their buckets are the fullest.
        while len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Gate:
    """ASGI middleware that lets through what `Limits` allow.

    Args:
      app: behind it.
      limits: what is allowed.
      refused: called with the reason of every refusal: `key`, `size`, `rate` or `busy`.
    """

    def __init__(self, app: ASGIApp, limits: Limits, refused: Callable[[str], None]) -> None:
        self._app, self._limits, self._refused = app, limits, refused
        self._buckets = TokenBuckets(limits.rate, limits.burst) if limits.rate else None
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        if path not in _OPEN and not self._has_key(headers):
            self._refused("key")
            await _refuse(401, "an API key is needed, in the header X-API-Key")(
                scope, receive, send
            )
            return
        if path not in _SEARCHES:
            await self._app(scope, _no_body(receive), send)
            return
        answer = self._refusal(scope, headers)
        if answer:
            await self._drain(receive)
            await answer(scope, receive, send)
            return
        self._active += 1
        try:
            await self._app(scope, self._bounded(receive), send)
        finally:
            self._active -= 1

    def _has_key(self, headers: Headers) -> bool:
        if not self._limits.api_key:
            return True
        given = headers.get("x-api-key") or headers.get("authorization", "")[len("Bearer ") :]
        # Takes as long whatever is wrong about it.
        return hmac.compare_digest(given.encode("utf-8"), self._limits.api_key.encode("utf-8"))

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        limits = self._limits
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_bytes + FORM_BYTES:
            self._refused("size")
            return _refuse(413, _too_large(limits))
        client = (scope.get("client") or ("", 0))[0]
        wait = self._buckets.wait(client) if self._buckets else 0.0
        if wait:
            self._refused("rate")
            return _refuse(429, "too many searches from here; try again", math.ceil(wait))
        if self._active >= limits.workers + limits.waiting:
            self._refused("busy")
            return _refuse(503, "too many searches at once; try again", 1)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """Returns a `receive` that ends uploads that are too long, in bytes or seconds."""
        limits, read = self._limits, 0
        end = time.monotonic() + limits.upload_seconds
        whole = False

        async def bounded() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                self._refused("size")
                raise HTTPException(
                    408, f"the upload took more than {limits.upload_seconds:g} seconds"
                ) from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > limits.max_bytes + FORM_BYTES:
                self._refused("size")
                raise HTTPException(413, _too_large(limits))
            return message

        return bounded

    async def _drain(self, receive: Receive) -> None:
        read, end = 0, time.monotonic() + self._limits.upload_seconds
        while read < _DRAINED_TIMES * self._limits.max_bytes:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                return
            read += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _too_large(limits: Limits) -> str:
    return f"the picture is too large; allowed are {limits.max_bytes / 1e6:g} MB"


def _refuse(status: int, detail: str, retry_after: int | None = None) -> JSONResponse:
    headers = {} if retry_after is None else {"Retry-After": str(max(1, retry_after))}
    return JSONResponse({"detail": detail}, status, headers)


def _no_body(receive: Receive) -> Receive:
    """Returns a `receive` that gives no bytes: nothing else than searches takes any."""

    async def empty() -> Message:
        message = await receive()
        return {**message, "body": b""} if message["type"] == "http.request" else message

    return empty
