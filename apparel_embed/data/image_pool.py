"""Prepares many images in parallel processes, in order and in bounded memory."""

from __future__ import annotations

import collections
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import urllib.parse
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from apparel_embed.common.cores import usable_cores
from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import is_remote, is_uri, locate
from apparel_embed.data.images import (
    Box,
    ImageSettings,
    PreparedImage,
    RejectedImage,
    prepare_image,
)

# Enough to keep every process busy while waiting for the oldest task; bounds the memory.
_TASKS_PER_PROCESS = 4
_IMAGES_PER_TASK = 16

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def image_path(image: str, directory: str | os.PathLike[str]) -> Path:
    """Returns the path of a manifest's `image`.

    Args:
      image: path, absolute or relative to `directory`, or a `file://` URI.
      directory: directory of the manifest.

    Raises:
      RejectedImage: if the URI has another scheme or host.
    """
    if not is_uri(image):
        return Path(directory, image)
    if is_remote(image):
        scheme = image.partition(":")[0]
        raise RejectedImage(f"{scheme}:// is not supported; copy the images to local files")
    host = urllib.parse.urlsplit(image).netloc
    if host not in ("", "localhost"):
        raise RejectedImage(f"file:// URI of another host, {host}; expected localhost")
    return Path(locate(image)[1])


def read_remote(uri: str) -> bytes:
    """Returns the bytes of an image in a store.

    Raises:
      RejectedImage: if it cannot be read.
    """
    try:
        system, path = locate(uri)
        with system.open_input_stream(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise RejectedImage("no such file") from error
    except (OSError, pa.ArrowException, UserError) as error:
        raise RejectedImage(f"cannot be read: {' '.join(str(error).split())}") from error


def prepare_images(
    images: Iterable[tuple[str, Box | None]],
    directory: str | os.PathLike[str],
    settings: ImageSettings,
    processes: int = 0,
    *,
    threads: bool = False,
    fetch: Callable[[str], bytes] | None = None,
) -> Generator[PreparedImage | str, None, None]:
    """Prepares images in several processes.

    Args:
      images: images as named in the manifest, each with its box or None.
      directory: directory that relative paths start from.
      settings: settings of `prepare_image`.
      processes: number of processes, 0 for one per core.
      threads: whether to use threads of this process instead, for callers that already use all
        cores with processes.
      fetch: returns the bytes of an image at a remote URI, or raises RejectedImage; without it such
        URIs are rejected.

    Yields:
      The prepared image, or the reason why it was rejected, in the order of `images`.

    Raises:
      UserError: if a process died.
    """
    source = iter(images)
    return run_tasks(
        functools.partial(_prepare_task, settings, str(directory), fetch),
        iter(lambda: list(itertools.islice(source, _IMAGES_PER_TASK)), []),
        processes,
        threads=threads,
        if_killed="finished shards are kept: run the same command again with fewer --processes or "
        "lower --max_pixels",
    )


def run_tasks(
    work: Callable[[_Task], list[_Result]],
    tasks: Iterable[_Task],
    processes: int = 0,
    *,
    threads: bool = False,
    if_killed: str,
) -> Generator[_Result, None, None]:
    """Works on tasks in several processes, in bounded memory.

    Args:
      work: returns the results of one task; a module-level function, or a `functools.partial` of
        one.
      tasks: tasks; a process works on one at a time.
      processes: as in `prepare_images`.
      threads: as in `prepare_images`.
      if_killed: remedy for the error if a process dies.

    Yields:
      The results, in the order of `tasks`.

    Raises:
      UserError: if a process died.
    """
    processes = processes or usable_cores()
    executor: Executor
    if threads:
        executor = ThreadPoolExecutor(processes)
    else:
        # Spawned, as the parent may have loaded TensorFlow, whose threads do not survive a fork.
        executor = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=start_worker
        )
    pending: collections.deque[Future[list[_Result]]] = collections.deque()
    try:
        for task in tasks:
            pending.append(executor.submit(work, task))
            if len(pending) >= processes * _TASKS_PER_PROCESS:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            f"a worker process died, most likely because memory ran out; {if_killed} (in your own "
            'script, call it only below if __name__ == "__main__":)'
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare_task(
    settings: ImageSettings,
    directory: str,
    fetch: Callable[[str], bytes] | None,
    images: Iterable[tuple[str, Box | None]],
) -> list[PreparedImage | str]:
    """Returns each prepared image, or the reason for its rejection. Runs in the workers."""
    results: list[PreparedImage | str] = []
    for image, box in images:
        try:
            if fetch is not None and is_remote(image):
                results.append(prepare_image(fetch(image), settings, box))
            else:
                results.append(prepare_image(image_path(image, directory), settings, box))
        except RejectedImage as error:
            results.append(str(error))
    return results


def start_worker() -> None:
    """Makes a worker end with its parent, even if that is killed, and ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("start_worker was called outside a worker process")

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
