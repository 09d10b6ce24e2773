"""Files on this machine, or in a store named by a URI: `gs://`, `s3://`, `hdfs://`."""

from __future__ import annotations

import contextlib
import functools
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path

SCHEME = "[A-Za-z][A-Za-z0-9+.-]*"
"""Regular expression of a URI's scheme, the part before `://`."""
_URI = re.compile(rf"({SCHEME})://([^/]*)/*(.*)", re.DOTALL)


def is_uri(location: str) -> bool:
    """Returns whether a location is a URI, not a path."""
    return bool(_URI.match(location))


def is_remote(location: str) -> bool:
    """Returns whether a location is outside this machine's file system."""
    found = _URI.match(location)
    return found is not None and found[1].lower() != "file"


def locate(location: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a path or URI, and its path there.

    Raises:
      UserError: if the scheme is unknown or the store does not answer.
    """
    found = _URI.match(location)
    if not found:
        return fs.LocalFileSystem(), location
    if found[1].lower() == "file":
        return fs.LocalFileSystem(), "/" + urllib.parse.unquote(found[3])
    system, root = _connect(f"{found[1]}://{found[2]}")
    return system, f"{root.rstrip('/')}/{found[3]}"


def beside(location: str, directory: str) -> str:
    """Returns a location resolved against a directory; absolute paths and URIs do not change."""
    if is_uri(location) or location.startswith("/"):
        return location
    return f"{directory.rstrip('/')}/{location}" if directory else location


def file_names(directory: str) -> set[str]:
    """Returns the names of the files in a directory; none if it does not exist."""
    system, path = locate(directory)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return {info.base_name for info in found if info.type == fs.FileType.File}


@contextlib.contextmanager
def write_aside(location: str) -> Iterator[BinaryIO]:
    """Yields a file to write to, which appears under its name if the block succeeds.

    Raises:
      UserError: if the location cannot be written to.
    """
    system, path = locate(location)
    try:
        if not is_remote(location):
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                yield file
            return
        directory, _, name = path.rpartition("/")
        aside = f"{directory}/.{name}.{uuid.uuid4().hex}"
        system.create_dir(directory, recursive=True)
        with system.open_output_stream(aside) as stream:
            yield stream
        system.move(aside, path)
    except OSError as error:
        raise UserError(
            f"{location}: cannot be written ({' '.join(str(error).split())}); finished work is "
            "kept: fix it and run the same command again"
        ) from error


@functools.lru_cache(maxsize=16)
def _connect(root: str) -> tuple[fs.FileSystem, str]:
    """Returns a store and the path of `root` in it; all files share one connection."""
    try:
        return fs.FileSystem.from_uri(root)
    except (OSError, ImportError, pa.ArrowException) as error:
        raise UserError(
            f"{root}: cannot be reached ({' '.join(str(error).split())}); expected a path, "
            "file://, gs://, s3:// or hdfs://"
        ) from error
