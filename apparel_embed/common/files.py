"""Atomic writes of files, fingerprints of their contents, and disk errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError

_AGAIN = "and run the same command again"
# Remedies by error number. Errors raised by C++ libraries have the message but not the number.
_REMEDIES = {
    errno.ENOSPC: f"free some space, {_AGAIN}",
    errno.EDQUOT: f"free some space, {_AGAIN}",
    errno.EFBIG: f"raise the limit (ulimit -f), {_AGAIN}",
    errno.EACCES: f"fix the permissions, {_AGAIN}",
    errno.EPERM: f"fix the permissions, {_AGAIN}",
    errno.EIO: f"check the disk, {_AGAIN}",
    errno.EROFS: "choose a writable directory",
    errno.ENOTDIR: "choose a writable directory",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path next to `path` for the block to write; renames it to `path` on success.

    A reader never sees half a file. A crash of the process or machine leaves an older `path` as it
    was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The block creates the file: one created here would stay if a signal came before `try`.
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        # The new name must not reach the disk before the contents.
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a directory, have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Waits until all files below a directory have reached the disk, and the directory itself."""
    for path in [*directory.rglob("*"), directory]:
        _sync(path)


def remove_temporaries(directory: Path) -> None:
    """Removes the files that `atomic_path` left below a directory when its process was killed.

    Args:
      directory: one that nobody writes to. All files in it with a leading dot are removed.
    """
    for path in directory.rglob(".*"):
        if path.is_file():
            path.unlink()


def remove_tree(directory: Path) -> None:
    """Removes a directory, renaming it first: under its own name it is complete or gone."""
    aside = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def disk_errors_as_user_errors(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Turns disk errors of any library into a UserError of one line.

    Args:
      directory: where the block writes to; named if the error does not name a file.

    Raises:
      UserError: replaces an error that says that the disk is full, read-only or failing.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        text = str(error)
        for known, remedy in _REMEDIES.items():
            reason = os.strerror(known)
            if number == known or reason in text:
                place = getattr(error, "filename", None) or directory
                raise UserError(f"{place}: {reason}; finished work is kept: {remedy}") from error
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Returns the value in a JSON file."""
    return json.loads(Path(path).read_text("utf-8"))


def fingerprint_json(value: Any) -> str:
    """Returns the SHA-256 (hex) of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fingerprint_files(paths: list[Path]) -> str:
    """Returns the SHA-256 (hex) of the contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        one = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                one.update(block)
        total.update(one.digest())
    return total.hexdigest()
