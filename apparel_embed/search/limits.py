"""Protects the service with limits on sizes, rates and concurrency, and with an API key.

Rate limiting packages would replace only `TokenBuckets`, with more code than it has.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import hmac
import math
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apparel_embed.search.config import Limits

# Allowance for the boundaries and headers of a form.
_FORM_BYTES = 65_536
_MOST_CLIENTS = 10_000
# Multiple of the limit that is read of an upload that is too large, so that the client reads why.
_DRAINED_TIMES = 8
_PAGE = ("/", "/app.css", "/app.js", "/boxes.js", "/icon.svg")
_OPEN = (*_PAGE, "/healthz", "/readyz", "/openapi.json")
_SEARCHES = ("/api/search", "/api/similar", "/api/detect", "/api/search_garments")


class TokenBuckets:
    """Token buckets of clients: each holds up to `burst` tokens and gains `rate` per second."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def wait(self, client: str) -> float:
        """Takes a token and returns 0, or returns the seconds until one is available."""
        now = self._clock()
        tokens, before = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        # Forget the clients with the oldest requests: their buckets are the fullest.
        while len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


class Gate:
    """ASGI middleware that enforces `Limits`.

    `refused` is called with the reason for each refusal: `key`, `size`, `rate` or `busy`.
    """

    def __init__(self, app: ASGIApp, limits: Limits, refused: Callable[[str], None]) -> None:
        self._app, self._limits, self._refused = app, limits, refused
        self._buckets = TokenBuckets(limits.rate, limits.burst) if limits.rate else None
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on."""
        path = scope["path"] if scope["type"] == "http" else "/"
        if path not in _OPEN and not self._has_key(Headers(scope=scope)):
            detail = "an API key is required in the header X-API-Key"
            await self._refuse("key", 401, detail)(scope, receive, send)
        elif path not in _SEARCHES:
            await self._app(scope, receive, send)
        elif refusal := self._refusal(scope):
            await self._upload(receive, 0)
            await refusal(scope, receive, send)
        else:
            self._active += 1
            try:
                upload = await self._upload(receive, self._limits.max_bytes + _FORM_BYTES)
                if isinstance(upload, bytes):
                    scope.setdefault("state", {})["count_more"] = functools.partial(
                        self._count_more, scope
                    )
                    await self._app(scope, _again(upload, receive), send)
                else:
                    await self._refuse("size", *upload)(scope, receive, send)
            finally:
                self._active -= 1

    def _has_key(self, headers: Headers) -> bool:
        if not self._limits.api_key:
            return True
        given = headers.get("x-api-key") or headers.get("authorization", "")[len("Bearer ") :]
        # In constant time: the duration must not reveal how much of the key is right.
        return hmac.compare_digest(given.encode("utf-8"), self._limits.api_key.encode("utf-8"))

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Returns the refusal of a search before its upload, or None."""
        limits = self._limits
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_bytes + _FORM_BYTES:
            return self._refuse("size", 413, too_large(limits))
        wait = self._wait(scope)
        if wait:
            return self._refuse("rate", 429, "too many searches from this client; retry", wait)
        if self._active >= limits.workers + limits.waiting:
            return self._refuse("busy", 503, "too many concurrent searches; retry", 1)
        return None

    def _wait(self, scope: Scope) -> float:
        return self._buckets.wait((scope.get("client") or ("", 0))[0]) if self._buckets else 0.0

    def _count_more(self, scope: Scope, searches: int) -> int:
        """Counts a request's searches beyond the first; returns the seconds to wait, or 0."""
        wait = max((self._wait(scope) for _ in range(searches)), default=0.0)
        if wait:
            self._refused("rate")
        return math.ceil(wait)

    async def _upload(self, receive: Receive, most: int) -> bytes | tuple[int, str]:
        """Returns a request's body, or a status and message if it exceeds `most` or is slow."""
        limits = self._limits

        async def read() -> bytes | tuple[int, str]:
            chunks, size, is_more = list[bytes](), 0, True
            # Continue past the limit, so that the client finishes sending and reads the refusal.
            while is_more and size < _DRAINED_TIMES * limits.max_bytes:
                message = await receive()
                chunk, is_more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                chunks.append(chunk)
                if size > most:
                    chunks.clear()
            return b"".join(chunks) if size <= most else (413, too_large(limits))

        try:
            return await asyncio.wait_for(read(), limits.upload_seconds)
        except asyncio.TimeoutError:
            return 408, f"the upload took more than {limits.upload_seconds:g} seconds"

    def _refuse(self, reason: str, status: int, detail: str, wait: float = 0.0) -> JSONResponse:
        self._refused(reason)
        headers = {"Retry-After": str(max(1, math.ceil(wait)))} if wait else {}
        return JSONResponse({"detail": detail}, status, headers)


def too_large(limits: Limits) -> str:
    """Returns the message for an upload of too many bytes."""
    return f"the image is too large; expected at most {limits.max_bytes / 1e6:g} MB"


def _again(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that replays a body already read, then passes on further messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
