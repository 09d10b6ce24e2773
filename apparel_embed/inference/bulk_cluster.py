"""Bulk embedding on many machines: the workers of a Dask cluster embed shards.

Dask is imported only here, and only when a cluster is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import pickle
import platform
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from absl import logging

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted, one_line
from apparel_embed.inference.bulk import embedding_bar
from apparel_embed.inference.bulk_shard import BulkConfig, Embed, embed_shards
from apparel_embed.inference.bulk_sources import Source, open_source

if TYPE_CHECKING:
    from distributed import Client, Future

_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_FIND_WORKERS = 60.0
# To load TensorFlow and the model, and to finish the work of a driver that was killed.
_SECONDS_TO_GET_READY = 600.0
_SECONDS_BETWEEN_CHECKS = 5.0
# For shards that fail, e.g. because a store does not answer; worker deaths do not count.
_RETRIES = 2
# Number of images that workers must prepare to the same bytes as the driver before they begin.
_SAMPLED = 16
_DRIVER = "driver"


@dataclasses.dataclass(frozen=True)
class _Job:
    """The job description sent to workers.

    Attributes:
      config: what to embed.
      shards: total number of shards.
      load: loads the model.
      threads: threads that prepare images in each worker, 0 for one per core.
      driver: unique id that the driver writes to the output directory.
      first: number of the shard that the sample is from.
      sample: `_sample` of this shard, as computed by the driver.
    """

    config: BulkConfig
    shards: int
    load: Callable[[], Embed]
    threads: int
    driver: str
    first: int
    sample: list[bytes | str]


def run_on_cluster(
    config: BulkConfig,
    todo: Sequence[int],
    shards: int,
    *,
    load: Callable[[], Embed],
    address: str,
    threads: int = 0,
) -> None:
    """Embeds shards with the workers of a Dask cluster, one task per shard.

    If a worker dies, another one repeats its shard. All workers must see images, model and output
    under the same names.

    Args:
      config: what to embed.
      todo: numbers of the shards.
      shards: total number of shards.
      load: loads the model; called once in each worker process, so it must be picklable.
      address: address of the scheduler.
      threads: threads that prepare images in each worker, 0 for one per core.

    Raises:
      UserError: if Dask is not installed; the cluster cannot be reached, has no workers or loses
        them; or a worker has other versions, sees other files than this process, or fails.
    """
    source, driver = open_source(config.source), uuid.uuid4().hex
    sample = _sample(config, source, todo[0])
    job = pickle.dumps(_Job(config, shards, load, threads, driver, todo[0], sample))
    with _connected(address) as client:
        config.directory.remember(_DRIVER, {_DRIVER: driver})
        embed = functools.partial(_embed, _versions(), job)
        _check_workers(client, embed)
        tasks = client.map(embed, todo, pure=False, retries=_RETRIES)
        with embedding_bar(config, source, todo) as bar:
            for _ in _finished(client, tasks):
                # The last shard may have fewer images, and may not be the last to finish.
                bar.update(min(config.source.shard_images, bar.total - bar.n))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    """Yields a client of a cluster that has workers."""
    try:
        from distributed import CancelledError, Client, TimeoutError
        from distributed.comm import CommClosedError, get_address_host_port
    except ImportError as error:
        raise UserError(
            "--cluster: Dask is not installed; run pip install -c requirements.lock distributed, "
            "here and on all machines of the cluster"
        ) from error
    try:
        # A client of a malformed address is only half closed: when it is garbage collected, it can
        # keep the next client from starting.
        get_address_host_port(address)
        client = Client(address, timeout=_SECONDS_TO_CONNECT)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(
            f"--cluster={address}: cannot be reached ({one_line(error)}); expected the address "
            "that `dask scheduler` prints, such as tcp://host:8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_FIND_WORKERS)
            yield client
        except (CancelledError, CommClosedError) as error:
            raise UserError(_stopped("lost the connection to the scheduler")) from error
        except TimeoutError as error:
            raise UserError(
                f"--cluster={address}: no worker within {_SECONDS_TO_FIND_WORKERS:.0f} s; start "
                f"some with: dask worker {address} --nthreads=1 --memory-limit=0"
            ) from error


def _check_workers(client: Client, check: Callable[[], None]) -> None:
    """Runs a check on each worker.

    Raises:
      UserError: if a check fails, or a worker does not answer in time.
    """
    from distributed import TimeoutError, wait

    checks = {one: client.submit(check, workers=[one], pure=False) for one in client.nthreads()}
    until = time.monotonic() + _SECONDS_TO_GET_READY
    late = list(checks)
    while late and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            wait(list(checks.values()), _SECONDS_BETWEEN_CHECKS)
        for gone in checks.keys() - client.nthreads().keys():
            # If it is restarted, it runs the check before its first shard.
            logging.warning("worker %s is gone; see its log", gone)
            del checks[gone]
        late = [one for one, check in checks.items() if not _is_finished(check)]
    if late:
        raise UserError(
            f"--cluster: {' and '.join(late)} did not answer within {_SECONDS_TO_GET_READY:.0f} s; "
            "expected workers without other jobs"
        )
    logging.info("%s ready", counted(len(checks), "worker"))


def _finished(client: Client, tasks: list[Future]) -> Iterator[None]:
    """Yields for each finished task, and releases it, so that its worker's death has no effect.

    Raises:
      UserError: if a task failed, or no workers are left.
    """
    from distributed import TimeoutError, wait

    left, seen = set(tasks), time.monotonic()
    tasks.clear()
    while left:
        done: set[Future] = set()
        with contextlib.suppress(TimeoutError):
            done, left = wait(left, _SECONDS_BETWEEN_CHECKS, "FIRST_COMPLETED")
        for task in done:
            if _is_finished(task):
                yield
        if done or client.nthreads():
            seen = time.monotonic()
        elif time.monotonic() - seen > _SECONDS_TO_FIND_WORKERS:
            raise UserError(
                _stopped(f"no worker for {_SECONDS_TO_FIND_WORKERS:.0f} s (see their logs)")
            )


def _is_finished(task: Future) -> bool:
    """Returns whether a task is finished; raises a UserError if it failed."""
    from distributed import KilledWorker

    if task.status != "error":
        return task.status == "finished"
    error = task.exception()
    if isinstance(error, UserError):
        raise error
    reason = f"{one_line(repr(error))} (expected the same installation on all machines)"
    if isinstance(error, KilledWorker):
        reason = "the workers of one shard died repeatedly, most likely for lack of memory"
    raise UserError(_stopped(reason)) from error


def _stopped(reason: str) -> str:
    return f"--cluster: {reason}; finished shards are kept; run the same command again to resume"


def _embed(versions: str, job: bytes, shard: int | None = None) -> None:
    """Embeds a shard, or only checks that this worker can (None). Runs in workers."""
    checked = time.monotonic()

    def check(_: int) -> None:
        nonlocal checked
        if time.monotonic() - checked > _SECONDS_BETWEEN_CHECKS:
            _check_driver(opened)
            checked = time.monotonic()

    with _naming_the_worker():
        if versions != _versions():
            raise UserError(f"has {_versions()}; expected the command's versions, {versions}")
        opened, source, embed = _ready(job)
        _check_driver(opened)
        if shard is not None:
            shards, threads = opened.shards, opened.threads
            embed_shards(opened.config, source, [shard], shards, embed, check, threads)


def _versions() -> str:
    """Returns the versions that must be the same on all machines."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = [f"{name} {metadata.version(name)}" for name in ("tensorflow", "distributed")]
    return ", ".join([f"Python {python}", f"apparel_embed {__version__}", *packages])


@functools.lru_cache(maxsize=1)
def _ready(job: bytes) -> tuple[_Job, Source, Embed]:
    """Loads the model, after checking that this worker sees the same files as the driver."""
    opened = pickle.loads(job)
    _check_driver(opened)
    source, directory = open_source(opened.config.source), opened.config.directory
    directory.remember(f"worker-{uuid.uuid4().hex}", {})
    found = _sample(opened.config, source, opened.first)
    for place, (actual, expected) in enumerate(zip(found, opened.sample)):
        if isinstance(expected, bytes) and actual != expected:
            name = source.names(source.rows(directory, opened.first).slice(place, 1))[0]
            problem = actual if isinstance(actual, str) else "prepared, it has different bytes"
            raise UserError(f"{name}: {problem}; expected the same image as where the command runs")
    return opened, source, opened.load()


def _check_driver(job: _Job) -> None:
    """Raises a UserError unless the output directory still belongs to the driver of the job.

    So the workers of a killed driver stop soon after a new driver has started.
    """
    if job.config.directory.recall(_DRIVER) != {_DRIVER: job.driver}:
        raise UserError(
            f"{job.config.directory.work} is not the directory that the command writes to; "
            "expected a path that is the same directory on all machines"
        )


def _sample(config: BulkConfig, source: Source, shard: int) -> list[bytes | str]:
    """Returns the SHA-256 of the first images of a shard, or the reasons for their rejection."""
    with contextlib.closing(source.images(config.directory, [shard], threads=1)) as found:
        return [
            image if isinstance(image, str) else hashlib.sha256(image).digest()
            for image in itertools.islice(found, _SAMPLED)
        ]


@contextlib.contextmanager
def _naming_the_worker() -> Iterator[None]:
    """Turns any error into a UserError of one line that names the worker."""
    try:
        yield
    except Exception as error:
        from distributed import get_worker

        message = one_line(error if isinstance(error, UserError) else repr(error))
        worker = f"worker {get_worker().address} on {socket.gethostname()}"
        raise UserError(f"{worker}: {message}") from error
