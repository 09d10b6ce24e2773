"""Benchmark of the search service under load: time, memory, and behaviour past its limits."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import http.client
import itertools
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from apparel_embed.benchmarks.harness import Rows, memory_mb
from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import setting
from apparel_embed.data.prepared import PreparedDataset

_START_SECONDS = 300
_ANSWER_SECONDS = 60.0
_WARM_UP = 3
_WAITING = 40
_OVERLOAD_CLIENTS = 96
# Shorter than a refusal's Retry-After, to keep up the load.
_REFUSED_SECONDS = 0.2
_HEADERS = {"Content-Type": "multipart/form-data; boundary=image"}
_BEFORE = (
    b'--image\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
)
_AFTER = b"\r\n--image--\r\n"


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer of the service: HTTP status, "0" if there was no answer, and time in ms."""

    status: str
    milliseconds: float


def query_images(dataset: PreparedDataset, count: int) -> list[bytes]:
    """Returns the dataset's last query images as JPEG files' bytes.

    Args:
      dataset: prepared dataset.
      count: maximum number of images, 1 or more.

    Raises:
      UserError: if there are none.
    """
    records = dataset.select(roles=["query", "both"])[-count:]
    if not len(records):
        raise UserError(f"{dataset.directory}: no images of role query or both to search with")
    return dataset.read_images(records)


@dataclasses.dataclass(frozen=True)
class SearchBenchmark:
    """Settings of the benchmark.

    Attributes:
      service: command of the search service, to which flags are added.
      images: bytes of the JPEG files to search with.
    """

    service: Sequence[str]
    images: Sequence[bytes]
    clients: Sequence[int] = setting(
        (1, 8, 32),
        "numbers of clients, separated by commas; each searches again as soon as it is answered",
        1,
        1000,
    )
    seconds: int = setting(30, "seconds of load for each number of clients", 1, 3600)


def measure_search(config: SearchBenchmark) -> Rows:
    """Loads the service with each number of clients, then past its limits, then lets it recover.

    Returns:
      A row per load: the figures of `summarise`, and the memory of the service afterwards.
    """
    service, clients, seconds = config.service, config.clients, config.seconds
    found: Rows = []
    short = max(3, seconds // 3)
    total = _WARM_UP + len(clients) * seconds + 3 * short + 1
    bar = progress_bar(total=total, what="load", unit="s")

    def load(name: str, count: int, seconds: int) -> None:
        logging.info("%s: %d clients, %d s", name, count, seconds)
        answers = _load(address, config.images, count, seconds)
        bar.update(seconds)
        memory = memory_mb("VmRSS", process.pid)
        found.append({"load": name, "clients": count, "seconds": seconds, **summarise(answers)})
        found[-1] |= {"per_second": _answered(answers) / seconds, "memory_mb": memory}

    with bar:
        with _service([*service, "--rate=0", f"--waiting={_WAITING}"]) as (process, address):
            load("warm-up", 1, _WARM_UP)
            for count in clients:
                load("load", count, seconds)
            load("too many at once", _OVERLOAD_CLIENTS, short)
            load("afterwards", 1, short)
        with _service([*service, "--rate=2", "--burst=5"]) as (process, address):
            load("too often", 1, short)
            time.sleep(1)
            logging.info("readyz afterwards: %d", _status(f"{address}/readyz"))
            time.sleep(4)
            load("afterwards", 1, 1)
    return found


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Returns the figures of a load: answers by status, and percentiles of the times of status 200.

    Errors are all answers except status 200 and refusals with a Retry-After header.
    """
    statuses = dict(sorted(collections.Counter(one.status for one in answers).items()))
    times = [one.milliseconds for one in answers if one.status == "200"]
    return {
        "answers": ", ".join(f"{count} x {status}" for status, count in statuses.items()),
        "errors": sum(n for status, n in statuses.items() if status not in ("200", "429", "503")),
        **{
            f"p{share}_ms": float(np.percentile(times, share)) if times else None
            for share in (50, 95, 99)
        },
    }


def _answered(answers: Sequence[Answer]) -> int:
    return sum(one.status == "200" for one in answers)


def _load(address: str, images: Sequence[bytes], clients: int, seconds: int) -> list[Answer]:
    """Returns the answers that clients get in some seconds, each client in its own thread."""
    end = time.monotonic() + seconds
    turns = itertools.cycle(images)

    def search_until_end(_: int) -> list[Answer]:
        place = urllib.parse.urlsplit(address).netloc
        connection = http.client.HTTPConnection(place, timeout=_ANSWER_SECONDS)
        answers = []
        while time.monotonic() < end:
            answers.append(_ask(connection, next(turns)))
            if answers[-1].status != "200":
                time.sleep(_REFUSED_SECONDS)
        connection.close()
        return answers

    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        return list(itertools.chain.from_iterable(threads.map(search_until_end, range(clients))))


def _ask(connection: http.client.HTTPConnection, image: bytes) -> Answer:
    start = time.perf_counter()
    try:
        connection.request("POST", "/api/search", _BEFORE + image + _AFTER, _HEADERS)
        answer = connection.getresponse()
        answer.read()
        status = str(answer.status)
        if status in ("429", "503") and not answer.headers.get("Retry-After"):
            status += " without Retry-After"
    except (OSError, http.client.HTTPException):
        connection.close()
        status = "0"
    return Answer(status, 1000 * (time.perf_counter() - start))


@contextlib.contextmanager
def _service(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts the service on a free port and ends it."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout
            for line in process.stdout:
                started = re.search(r"http://\S+:\d+", line)
                if started:
                    break
            else:
                log.seek(0)
                lines = log.read().strip().splitlines() or ["no error message"]
                raise UserError(f"the service does not start: {lines[-1]}")
            _wait_until_ready(started.group())
            yield process, started.group()
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(address: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while _status(f"{address}/readyz") != 200:
        if time.monotonic() > end:
            raise UserError(f"{address}: not ready within {_START_SECONDS} s")
        time.sleep(0.2)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
