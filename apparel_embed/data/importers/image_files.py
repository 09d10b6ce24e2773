"""Finds image files in folders, checks that they exist, measures them and names them."""

from __future__ import annotations

import collections
import contextlib
import os
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import SCHEME
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.image_pool import image_path
from apparel_embed.data.images import SUFFIXES, RejectedImage, image_size
from apparel_embed.data.importers.rows import SOURCE_ROW, Rows

# More threads than cores: they wait for the disk.
READERS = 16

# Folders that systems add: thumbnails of Synology, resource forks of macOS.
_SYSTEM_FOLDERS = frozenset({"@eaDir", "__MACOSX"})


class LeftOut(collections.defaultdict[str, list[str]]):
    """Paths that were left out, by reason, a plural noun phrase."""

    def __init__(self) -> None:
        super().__init__(list)

    def notes(self) -> tuple[str, ...]:
        """Returns a line for each reason, e.g. "left out: hidden files: 2 (e.g. .DS_Store)"."""
        return tuple(
            f"left out: {reason}: {len(paths):,} (e.g. {paths[0]})"
            for reason, paths in sorted(self.items())
        )


def is_image(name: str) -> bool:
    """Returns whether a file name has an image extension."""
    return name.lower().endswith(SUFFIXES)


def images_below(
    root: Path, left_out: LeftOut, folder: str = "", accept: Callable[[str], object] = is_image
) -> list[str]:
    """Returns all images below a folder, at any depth, sorted; links to folders are followed.

    Args:
      root: the dataset's root, which all paths are relative to.
      left_out: collects hidden files, files that are not images, and folders found twice.
      folder: where to search, with forward slashes; "" for the root.
      accept: returns whether a file name is that of an image.

    Raises:
      UserError: a folder cannot be read, or a name is not UTF-8.
    """
    images: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(root / folder)
            # The system's order is arbitrary, and of a link and its target the first one counts.
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{root / folder}: cannot be read: {error.strerror}") from error
        if (status.st_dev, status.st_ino) in seen:
            left_out["links to folders that were found already"].append(folder)
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            check_name(root, path)
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                left_out["hidden files and folders"].append(path)
            elif os.path.isdir(entry):
                folders.append(path)
            elif accept(entry.name):
                images.append(path)
            else:
                left_out["files without an image extension"].append(path)
        waiting += reversed(folders)
    return sorted(images)


def check_name(root: Path, path: str) -> None:
    """Raises a UserError if a path below the root is not UTF-8, the encoding of manifests."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{root}: the name {os.fsencode(path)!r} is not UTF-8; rename the file or folder"
        ) from error


def are_remote(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns whether each image is a URI of another machine."""
    files = pc.match_substring_regex(images, "(?i)^file://")
    return pc.and_not(_are_uris(images), files)


def clean_paths(rows: Rows) -> None:
    """Normalises image paths: no "./", no "//", forward slashes.

    Backslashes stay in rows derived from file names. A path that begins with a slash, as in a
    shop's URLs, becomes relative to the root if the file exists only there.
    """
    images = rows.table["image"]
    slashed = pc.replace_substring(images, "\\", "/")
    paths = pc.if_else(rows.table[SOURCE_ROW].is_valid(), slashed, images)
    paths = pc.replace_substring_regex(paths, "/{2,}", "/")
    paths = pc.replace_substring_regex(paths, r"(^|/)(\./)+", r"\1")
    images = pc.if_else(_are_uris(images), images, paths)
    rooted = images.filter(pc.starts_with(images, "/")).unique()
    gone = rooted.filter(is_missing(rooted, rows.root))
    below_root = gone.filter(pc.invert(is_missing(pc.utf8_ltrim(gone, "/"), rows.root)))
    is_below_root = pc.is_in(images, value_set=below_root)
    rows.put("image", pc.if_else(is_below_root, pc.utf8_ltrim(images, "/"), images))


def is_missing(images: pa.ChunkedArray | pa.Array, root: Path) -> pa.ChunkedArray | pa.Array:
    """Returns whether each image is the path of a file that does not exist.

    False for URIs of other machines, which cannot be checked, and for empty texts.

    Args:
      images: paths relative to the root or absolute, or URIs.
      root: the dataset's root.
    """
    local = images.filter(pc.invert(pc.or_(are_remote(images), pc.equal(images, "")))).unique()
    exists = pa.array(_map_files(root, local.to_pylist(), Path.is_file, False), pa.bool_())
    return pc.is_in(images, value_set=local.filter(pc.invert(exists)))


def similar_file(root: Path, image: str) -> str | None:
    """Returns a name in the folder of a missing file that differs at most in case or Unicode form.

    An identical name belongs to a directory, a pipe or a broken link.
    """

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    folder, _, name = image.rpartition("/")
    with contextlib.suppress(OSError):
        others = sorted(os.listdir(root / folder))
        return next((other for other in others if folded(other) == folded(name)), None)
    return None


def image_sizes(root: Path, images: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns widths and heights of upright images in pixels, float [n]; NaN where unreadable.

    Args:
      root: where relative paths begin.
      images: n paths or file:// URIs; preparing reports those that are unreadable.
    """
    with warnings.catch_warnings():
        # Pillow warns about odd metadata. Set here, as warning filters apply to all threads.
        warnings.simplefilter("ignore")
        sizes = _map_files(root, images, image_size, (np.nan, np.nan))
    widths, heights = np.array(sizes, np.float64).reshape(-1, 2).T
    return widths, heights


def _map_files(
    root: Path, images: Sequence[str], function: Callable[[Path], Any], default: Any
) -> list[Any]:
    """Returns the function's result for each image file, using threads; `default` if it fails."""

    def apply(image: str) -> Any:
        try:
            return function(image_path(image, root))
        except (OSError, ValueError, RejectedImage):
            return default

    # In batches: handing a thread a single file takes longer than a look-up on a local disk.
    parts = [images[start : start + 256] for start in range(0, len(images), 256)]
    with ThreadPoolExecutor(READERS) as readers:
        results = readers.map(lambda part: [apply(image) for image in part], parts)
        bar = progress_bar(results, total=len(parts), what="checking", unit="x 256 images")
        return [result for part in bar for result in part]


def relative_to_manifest(images: pa.ChunkedArray, root: Path, manifest: Path) -> pa.ChunkedArray:
    """Returns images as the manifest names them.

    Args:
      images: relative to `root`, absolute, or URIs, which stay as they are.
      root: the dataset's root.
      manifest: the file to be written.

    Returns:
      Paths relative to the manifest's directory for images in or below it, absolute paths for
      others.
    """
    home = os.path.join(os.path.abspath(manifest.parent), "")
    top = os.path.join(os.path.abspath(root), "")
    absolute = pc.or_(_are_uris(images), pc.starts_with(images, "/"))
    full = pc.if_else(absolute, images, pc.binary_join_element_wise(top, images, ""))
    inside = pc.starts_with(full, home)
    return pc.if_else(inside, pc.utf8_slice_codeunits(full, start=len(home)), full)


def _are_uris(images: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(images, f"^{SCHEME}://")
