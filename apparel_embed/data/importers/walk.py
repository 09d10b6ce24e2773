"""Finding pictures in folders, and counting what is no picture."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import SUFFIXES

# What computers put beside people's files: previews of Synology, resource forks of macOS.
_NOT_OURS = frozenset({"@eaDir", "__MACOSX"})


class LeftOut:
    """Counts files and folders that were left out, by reason, each with an example."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: str) -> None:
        """Counts one; `reason` says what it is one of, in the plural."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, path)

    def notes(self) -> tuple[str, ...]:
        """Returns a line for each reason, e.g. "left out: hidden files: 2 (e.g. .DS_Store)"."""
        return tuple(
            f"left out: {reason}: {count:,} (e.g. {self._examples[reason]})"
            for reason, count in sorted(self._counts.items())
        )


@dataclasses.dataclass(frozen=True)
class Folder:
    """What is in a folder, paths relative to the dataset's root, sorted."""

    folders: list[str]
    pictures: list[str]


def is_picture(name: str) -> bool:
    """Returns whether a file is a picture by its name."""
    return name.lower().endswith(SUFFIXES)


def list_folder(
    root: Path, folder: str, left_out: LeftOut, accept: Callable[[str], bool] = is_picture
) -> Folder:
    """Returns the pictures and folders in a folder; counts what is hidden or no picture.

    Args:
      root: the dataset's root.
      folder: relative to the root, with forward slashes; "" for the root.
      left_out: counts what is left out.
      accept: tells from a file's name whether it is a picture.

    Raises:
      UserError: the folder cannot be read, or a name in it is not UTF-8.
    """
    found = Folder([], [])
    try:
        with os.scandir(root / folder) as entries:
            # Directories list their entries in any order; the same data is to give the same bytes.
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}" if folder else entry.name
                check_name(root, path)
                if entry.name.startswith(".") or entry.name in _NOT_OURS:
                    left_out.add("hidden files and folders", path)
                elif _is_folder(entry):
                    found.folders.append(path)
                elif accept(entry.name):
                    found.pictures.append(path)
                else:
                    left_out.add("files that are no pictures, by their names", path)
    except OSError as error:
        raise UserError(f"{root / folder}: cannot be read: {error.strerror}") from error
    return found


def pictures_below(
    root: Path, left_out: LeftOut, folder: str = "", accept: Callable[[str], bool] = is_picture
) -> list[str]:
    """Returns all pictures below a folder, at any depth, sorted.

    Folders that links lead to are walked through, each once.

    Args:
      root: what the pictures' paths are relative to.
      left_out: counts what is left out.
      folder: where to look, relative to the root, with forward slashes; "" for the root.
      accept: tells from a file's name whether it is a picture.

    Raises:
      UserError: a folder cannot be read, or a name is not UTF-8.
    """
    pictures: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in seen:
            left_out.add("links to folders that were found already", folder)
            continue
        seen.add((status.st_dev, status.st_ino))
        found = list_folder(root, folder, left_out, accept)
        pictures += found.pictures
        waiting += reversed(found.folders)
    return sorted(pictures)


def check_name(root: Path, path: str) -> None:
    """Raises a UserError if a path below the root is not UTF-8, as manifests are."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{root}: the name {os.fsencode(path)!r} is not UTF-8; rename the file or folder"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False
