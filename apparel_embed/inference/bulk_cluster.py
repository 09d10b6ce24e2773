"""Bulk embedding on many machines: shards by the workers of a Dask cluster, by the code for one.

Dask is imported here only, and when it is asked for: everything else runs without it.
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
# For TensorFlow, the model, and what a driver that was killed has left to do.
_SECONDS_TO_GET_READY = 600.0
_SECONDS_BETWEEN_LOOKS = 5.0
# Of a shard that fails, say for want of a store's answer; that a worker dies is not its fault.
_RETRIES = 2
# How many images workers must prepare to the same bytes as the driver before they begin.
_SAMPLED = 16
_DRIVER = "driver"


@dataclasses.dataclass(frozen=True)
class _Job:
    """What workers need to know.

    Attributes:
      config: what to do.
      shards: how many there are in all.
      load: loads the model.
      threads: that prepare images in each worker, 0 for one per core.
      driver: what the driver notes in the directory of the result, and no other does.
      first: number of a shard.
      sample: what the driver makes of its first images, see `_sample`.
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
    """Embeds shards by the workers of a Dask cluster, one shard being one task.

    A worker that dies takes one shard with it, which another does again. All workers must see
    images, model and output under the same names.

    Args:
      config: what to do.
      todo: numbers of the shards.
      shards: how many there are in all.
      load: loads the model; called once in each worker process, so it must be possible to pickle.
      address: of the scheduler.
      threads: that prepare images in each worker, 0 for one per core.

    Raises:
      UserError: Dask is not installed; the cluster cannot be reached, has no workers or loses
        them; or a worker is of other versions, does not see what this process sees, or fails.
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
                # The last shard may have fewer, and be finished before others.
                bar.update(min(config.source.shard_images, bar.total - bar.n))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    """Yields a client of a cluster that has workers."""
    try:
        from distributed import CancelledError, Client, TimeoutError
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise UserError(
            "--cluster: Dask is not installed: pip install -c requirements.lock distributed, here "
            "and on all machines of the cluster"
        ) from error
    try:
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
            raise UserError(_stopped("the scheduler cannot be reached any more")) from error
        except TimeoutError as error:
            raise UserError(
                f"--cluster={address}: no worker within {_SECONDS_TO_FIND_WORKERS:.0f} s; start "
                f"some: dask worker {address} --nthreads=1 --memory-limit=0"
            ) from error


def _check_workers(client: Client, check: Callable[[], None]) -> None:
    """Has each worker find out whether it can do its work."""
    from distributed import TimeoutError, wait

    checks = {one: client.submit(check, workers=[one], pure=False) for one in client.nthreads()}
    until = time.monotonic() + _SECONDS_TO_GET_READY
    late = list(checks)
    while late and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            wait(list(checks.values()), _SECONDS_BETWEEN_LOOKS)
        for gone in checks.keys() - client.nthreads().keys():
            # If it is started again, it checks before its first shard.
            logging.warning("worker %s is gone; its log says why", gone)
            del checks[gone]
        late = [one for one, check in checks.items() if not _is_finished(check)]
    if late:
        raise UserError(
            f"--cluster: {' and '.join(late)} did not answer within {_SECONDS_TO_GET_READY:.0f} s; "
            "expected workers that nobody else uses"
        )
    logging.info("%s ready", counted(len(checks), "worker"))


def _finished(client: Client, tasks: list[Future]) -> Iterator[None]:
    """Yields when a task is finished, and forgets it, lest it is done again if its worker dies.

    Raises:
      UserError: a task failed, or there are no workers any more.
    """
    from distributed import TimeoutError, wait

    left, seen = set(tasks), time.monotonic()
    tasks.clear()
    while left:
        done: set[Future] = set()
        with contextlib.suppress(TimeoutError):
            done, left = wait(left, _SECONDS_BETWEEN_LOOKS, "FIRST_COMPLETED")
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
    """Returns whether a task is done; raises a UserError if it failed."""
    from distributed import KilledWorker

    if task.status != "error":
        return task.status == "finished"
    error = task.exception()
    if isinstance(error, UserError):
        raise error
    reason = f"{one_line(repr(error))} (expected the same installation on all machines)"
    if isinstance(error, KilledWorker):
        reason = "one shard's workers died again and again, most likely for want of memory"
    raise UserError(_stopped(reason)) from error


def _stopped(reason: str) -> str:
    return f"--cluster: {reason}; finished shards are kept: run the same command again"


def _embed(versions: str, job: bytes, shard: int | None = None) -> None:
    """Embeds a shard, or only finds out whether this worker could. Runs in workers."""
    looked = time.monotonic()

    def heed(_: int) -> None:
        nonlocal looked
        if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
            _heed_driver(opened)
            looked = time.monotonic()

    with _naming_the_worker():
        if versions != _versions():
            raise UserError(f"has {_versions()}; expected what the command has, {versions}")
        opened, source, embed = _ready(job)
        _heed_driver(opened)
        if shard is not None:
            embed_shards(opened.config, source, [shard], opened.shards, embed, heed, opened.threads)


def _versions() -> str:
    """Returns what must be the same on all machines."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = [f"{name} {metadata.version(name)}" for name in ("tensorflow", "distributed")]
    return ", ".join([f"Python {python}", f"apparel_embed {__version__}", *packages])


@functools.lru_cache(maxsize=1)
def _ready(job: bytes) -> tuple[_Job, Source, Embed]:
    """Loads the model, once it is clear that this worker sees what the driver sees."""
    opened = pickle.loads(job)
    _heed_driver(opened)
    source, directory = open_source(opened.config.source), opened.config.directory
    directory.remember(f"worker-{uuid.uuid4().hex}", {})
    found = _sample(opened.config, source, opened.first)
    for place, (ours, theirs) in enumerate(zip(found, opened.sample)):
        if isinstance(theirs, bytes) and ours != theirs:
            name = source.names(source.rows(directory, opened.first).slice(place, 1))[0]
            told = ours if isinstance(ours, str) else "prepared, it has other bytes"
            raise UserError(f"{name}: {told}; where the command runs it is as it should be")
    return opened, source, opened.load()


def _heed_driver(job: _Job) -> None:
    """Raises a UserError unless the directory of the result is the driver's, and still its own.

    So a worker soon stops that works for a driver that was killed, once there is another.
    """
    if job.config.directory.recall(_DRIVER) != {_DRIVER: job.driver}:
        raise UserError(
            f"{job.config.directory.work} is not the directory that the command writes to; "
            "expected one that all machines see under the same name"
        )


def _sample(config: BulkConfig, source: Source, shard: int) -> list[bytes | str]:
    """Returns SHA-256 of the first images of a shard, or the reason where there is none."""
    with contextlib.closing(source.images(config.directory, [shard], threads=1)) as found:
        return [
            image if isinstance(image, str) else hashlib.sha256(image).digest()
            for image in itertools.islice(found, _SAMPLED)
        ]


@contextlib.contextmanager
def _naming_the_worker() -> Iterator[None]:
    """Makes one line of whatever goes wrong in a worker."""
    try:
        yield
    except Exception as error:
        from distributed import get_worker

        told = one_line(error if isinstance(error, UserError) else repr(error))
        who = f"worker {get_worker().address} on {socket.gethostname()}"
        raise UserError(f"{who}: {told}") from error
