"""The search service under load: how fast, how large, and what happens past its limits."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from rich import box
from rich.table import Table

from apparel_embed.benchmarks.measure import resident_mb
from apparel_embed.benchmarks.process import environment_with
from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import setting
from apparel_embed.common.text import plain_text
from apparel_embed.data.prepared import PreparedDataset

# Locust replaces Python's sockets and brings a web framework of its own: it gets an environment.
LOCUST = "locust==2.42.0"
_LOAD = Path(__file__).with_name("search_load.py")
_START_SECONDS = 300
_WARM_UP = 3
_WAITING = 40
_OVERLOAD_CLIENTS = 96


@dataclasses.dataclass(frozen=True)
class SearchBenchmark:
    """What to measure.

    Attributes:
      service: command that serves the search, to which flags are added.
      pictures: JPEG files' bytes to search by.
    """

    service: Sequence[str]
    pictures: Sequence[bytes]
    clients: Sequence[int] = setting(
        (1, 8, 32),
        "numbers of clients, with commas between them; each asks again as soon as it is answered",
        1,
        1000,
    )
    seconds: int = setting(30, "how long each number of clients asks, in seconds", 1, 3600)
    locust_environment: Path = setting(
        Path("~/.cache/apparel_embed/locust"),
        "directory of the virtual environment for Locust, made where it is missing",
    )


@dataclasses.dataclass(frozen=True)
class LoadMeasurement:
    """What a number of clients met with.

    Attributes:
      name: of the load.
      clients: how many asked at once.
      seconds: how long.
      statuses: how many answers had each HTTP status; "0" is none at all.
      p50_ms: median time of an answer with status 200, in ms; likewise p95_ms and p99_ms.
      memory_mb: of the service afterwards, resident, 10^6 bytes; 0 where Linux's /proc is missing.
    """

    name: str
    clients: int
    seconds: int
    statuses: Mapping[str, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    memory_mb: float

    @property
    def errors(self) -> int:
        """Answers that are neither 200 nor a refusal that says when to come back."""
        return sum(
            count for status, count in self.statuses.items() if status not in ("200", "429", "503")
        )


def query_pictures(dataset: PreparedDataset, count: int) -> list[bytes]:
    """Returns the dataset's last query pictures, as JPEG files' bytes.

    Args:
      dataset: where they are.
      count: how many at most, 1 or more.

    Raises:
      UserError: if there is none.
    """
    records = dataset.select(roles=["query", "both"])[-count:]
    if not len(records):
        raise UserError(f"{dataset.directory}: has no query pictures to search by")
    return dataset.read_images(records)


def run_search_benchmark(config: SearchBenchmark) -> list[LoadMeasurement]:
    """Loads the service with each number of clients, then past its limits, and sees it recover."""
    locust = str(environment_with(config.locust_environment, [LOCUST]) / "locust")
    found: list[LoadMeasurement] = []
    short = max(3, config.seconds // 3)
    total = _WARM_UP + len(config.clients) * config.seconds + 3 * short + 1
    bar = progress_bar(total=total, what="load", unit="s")
    with bar, tempfile.TemporaryDirectory() as directory:
        for number, picture in enumerate(config.pictures):
            (Path(directory) / f"{number:05d}.jpg").write_bytes(picture)

        def load(name: str, clients: int, seconds: int) -> None:
            logging.info("%s: %d clients, %d s", name, clients, seconds)
            stats = _load(locust, address, directory, clients, seconds)
            bar.update(seconds)
            found.append(_measured(name, clients, seconds, stats, process.pid))

        with _service([*config.service, "--rate=0", f"--waiting={_WAITING}"]) as (process, address):
            load("warm-up", 1, _WARM_UP)
            for clients in config.clients:
                load("load", clients, config.seconds)
            load("too many at once", _OVERLOAD_CLIENTS, short)
            load("afterwards", 1, short)
        with _service([*config.service, "--rate=2", "--burst=5"]) as (process, address):
            load("too often", 1, short)
            time.sleep(1)
            status = _status(f"{address}/readyz")
            logging.info("readyz afterwards: %d", status)
            time.sleep(4)
            load("afterwards", 1, 1)
    return found


def table_of(found: Sequence[LoadMeasurement]) -> str:
    """Returns the measurements as text."""
    table = Table(box=box.SIMPLE)
    headings = ("", "clients", "s", "answers", "per s", "p50 ms", "p95 ms", "p99 ms", "MB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("", "answers") else "right")
    for one in found:
        answers = ", ".join(f"{count} x {status}" for status, count in one.statuses.items())
        table.add_row(
            one.name,
            str(one.clients),
            str(one.seconds),
            answers,
            f"{one.statuses.get('200', 0) / one.seconds:.1f}",
            f"{one.p50_ms:.0f}",
            f"{one.p95_ms:.0f}",
            f"{one.p99_ms:.0f}",
            f"{one.memory_mb:.0f}",
        )
    return plain_text(table, width=120)


def summary_of(found: Sequence[LoadMeasurement]) -> dict[str, Any]:
    """Returns the measurements as JSON values."""
    return {"loads": [{**dataclasses.asdict(one), "errors": one.errors} for one in found]}


def percentile(times: Mapping[str, int], share: float) -> float:
    """Returns the time below which a share of the answers came.

    Args:
      times: how many answers took so many ms.
      share: 0 to 1.
    """
    total, seen = sum(times.values()), 0
    for milliseconds, count in sorted((float(one), count) for one, count in times.items()):
        seen += count
        if seen >= share * total:
            return milliseconds
    return 0.0


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
                lines = log.read().strip().splitlines() or ["it said nothing"]
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


def _load(
    locust: str, address: str, pictures: str, clients: int, seconds: int
) -> list[dict[str, Any]]:
    """Returns Locust's statistics, one entry for each status."""
    command = [
        locust, "--locustfile", str(_LOAD), "--headless", "--json", "--host", address,
        "--users", str(clients), "--spawn-rate", str(clients), "--run-time", f"{seconds}s",
        "--stop-timeout", "60", "--loglevel", "ERROR",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PICTURES": pictures}
    )
    try:
        return json.loads(done.stdout[done.stdout.index("[") :])
    except ValueError as error:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise UserError(f"Locust failed: {lines[-1]}") from error


def _measured(
    name: str, clients: int, seconds: int, stats: Sequence[Mapping[str, Any]], process: int
) -> LoadMeasurement:
    times: Mapping[str, int] = next(
        (one["response_times"] for one in stats if one["name"] == "200"), {}
    )
    return LoadMeasurement(
        name,
        clients,
        seconds,
        {one["name"]: one["num_requests"] for one in sorted(stats, key=lambda one: one["name"])},
        p50_ms=percentile(times, 0.5),
        p95_ms=percentile(times, 0.95),
        p99_ms=percentile(times, 0.99),
        memory_mb=resident_mb(process) or 0.0,
    )
