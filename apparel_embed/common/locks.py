"""Locks that name their holder and are released however the holder ends."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from apparel_embed.common.errors import UserError


def lock_path(directory: Path) -> Path:
    """Returns the lock file of a directory, next to it; the directory need not exist yet."""
    return directory.with_name(f".{directory.name}.lock")


@contextlib.contextmanager
def only_writer(directory: Path, lock: Path | None = None) -> Iterator[None]:
    """Holds the lock of a directory; a second process is refused at once.

    The lock is the kernel's (flock), so a killed process leaves no lock; its file may stay, which
    means nothing. On NFS the lock works across machines since Linux 2.6.12 if the server's lock
    service runs; Lustre must be mounted with `-o flock`. If the file system has no locks, a
    warning is logged and nobody is refused.

    Args:
      directory: the directory to write to; its parent is created if missing.
      lock: the lock file, if not `lock_path(directory)`.

    Raises:
      UserError: if another process, or another caller in this one, holds the lock; the message
        names host and process id.
    """
    path = lock or lock_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(path, directory)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        try:
            file.truncate(0)
            file.write(json.dumps(_myself()).encode())
            yield
        finally:
            # Before it is released: others that have opened it find that it is no longer the file.
            path.unlink(missing_ok=True)


def refuse_if_held(path: Path, directory: Path) -> None:
    """Raises a UserError if a lock is held by another process.

    Args:
      path: the lock file, which need not exist.
      directory: the directory it locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(handle)
        if (holder.get("host"), holder.get("process")) != (socket.gethostname(), os.getpid()):
            raise _refusal(directory, holder) from error
    except OSError:
        return
    finally:
        os.close(handle)


def _acquire(path: Path, directory: Path) -> int:
    """Returns the handle of the lock file, locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(handle, path):
                return handle
        except BlockingIOError as error:
            holder = _holder(handle)
            os.close(handle)
            raise _refusal(directory, holder) from error
        except OSError as error:
            logging.warning(
                "%s: no locks on this file system (%s); make sure that nobody else writes to %s",
                path,
                error.strerror,
                directory,
            )
            return handle
        # Its holder removed it after it was opened here and before it was locked.
        os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Returns whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _myself() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": os.path.basename(sys.argv[0]),
        "since": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _holder(handle: int) -> dict[str, str | int]:
    """Returns the description of a lock's holder; empty if it is not written yet."""
    try:
        value = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(directory: Path, holder: dict[str, str | int]) -> UserError:
    who = "another process"
    if holder:
        who = (
            f"process {holder.get('process')} on host {holder.get('host')} "
            f"({holder.get('command')}, since {holder.get('since')})"
        )
    return UserError(f"{directory}: {who} is writing to it; wait for that process or stop it")
