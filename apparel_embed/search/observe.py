"""Observability of the service: a JSON log line and metrics per request; security headers."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOGGER = logging.getLogger("apparel_embed.search")
_SAFE_HEADERS = {
    # Only the page's own files, and images that are already in the browser.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Prometheus metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        kept: dict[str, Any] = {"namespace": "apparel_search", "registry": self.registry}
        timed: dict[str, Any] = {**kept, "buckets": _SECONDS}
        routes = "Requests by route and status."
        self.requests = Counter("requests_total", routes, ("route", "status"), **kept)
        whole = "Time from the headers of a request to the end of the answer."
        self.seconds = Histogram("request_seconds", whole, ("route",), **timed)
        steps = "Time of the steps of a search: prepare, embed, detect, search."
        self.step_seconds = Histogram("step_seconds", steps, ("step",), **timed)
        reasons = "Refused requests by reason: key, size, rate, busy."
        self.refused = Counter("refused_total", reasons, ("reason",), **kept)
        verdicts = "Searches by vertical searched (ALL: all verticals) and verdict."
        self.verdicts = Counter("verdicts_total", verdicts, ("vertical", "verdict"), **kept)
        self.in_flight = Gauge("in_flight", "Requests being answered.", **kept)
        self.images = Gauge("images", "Images in the index.", **kept)


class JsonFormatter(logging.Formatter):
    """Writes a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Observe:
    """ASGI middleware for logs, metrics, security headers, and status 500 on exceptions."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        request = uuid.uuid4().hex[:16]

        async def safe_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request
                for name, value in _SAFE_HEADERS.items():
                    headers[name] = value
                if "Cache-Control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, safe_send)
        except Exception:
            LOGGER.exception("a request failed", extra={"about": {"request": request}})
            if not status:
                failed = {
                    "detail": f"internal error; see the log of the service (request {request})"
                }
                await JSONResponse(failed, 500)(scope, receive, safe_send)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, request, status, time.perf_counter() - start)

    def _record(self, scope: Scope, request: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # Requests of Prometheus and probes come every few seconds and would flood the log.
        level = logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO
        about = {
            "request": request,
            "client": (scope.get("client") or ("", 0))[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            **scope.get("state", {}).get("about", {}),
        }
        LOGGER.log(level, "request", extra={"about": about})
