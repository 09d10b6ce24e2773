"""Files that appear whole or not at all, and fingerprints of what is in them."""

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
# What a disk may say, and what helps. Libraries written in C++ keep the words and lose the number.
_REMEDIES = {
    errno.ENOSPC: f"make room, {_AGAIN}",
    errno.EDQUOT: f"make room, {_AGAIN}",
    errno.EFBIG: f"raise the limit (ulimit -f), {_AGAIN}",
    errno.EACCES: f"see to the permissions, {_AGAIN}",
    errno.EPERM: f"see to the permissions, {_AGAIN}",
    errno.EIO: f"look after the disk, {_AGAIN}",
    errno.EROFS: "name a place that can be written",
    errno.ENOTDIR: "name a place that can be written",
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside `path` for the block to write; renames it to `path` if that succeeds.

    A reader never sees half a file, and a crash leaves an older `path` as it was, be it of the
    process or of the machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The block makes the file: one made here would stay if a signal came before `try`.
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        # A new name must not reach the disk before what it stands for.
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, have reached the disk."""
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
    """Removes what `atomic_path` left below a directory when its process was killed.

    Args:
      directory: one that nobody writes to. Nothing of value in it may have a name with a dot first.
    """
    for path in directory.rglob(".*"):
        if path.is_file():
            path.unlink()


def remove_tree(directory: Path) -> None:
    """Removes a directory, which loses its name before its files go: it is whole or not there."""
    aside = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def disk_errors_as_user_errors(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Makes one line of what goes wrong because of the disk, whichever library says so.

    Args:
      directory: where the block writes to; named where the error does not name a file.

    Raises:
      UserError: in place of an error that says that the disk is full, is read-only or fails.
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
                raise UserError(
                    f"{place}: {reason}; what was finished is kept: {remedy}"
                ) from error
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
