"""Pictures' paths: clean, found on disk, and as they are to stand in the manifest."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.locations import SCHEME
from apparel_embed.data.importers.imported import SOURCE_ROW
from apparel_embed.data.picture_pool import image_path
from apparel_embed.data.pictures import RejectedPicture


def are_uris(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns of images whether they are URIs."""
    return _matches(images, "://", f"^{SCHEME}://")


def are_remote(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns of images whether they are URIs of something else than files."""
    files = _matches(images, "://", "(?i)^file://")
    return pc.and_not(are_uris(images), files)


def clean_paths(table: pa.Table) -> pa.Table:
    """Returns the table with one spelling for each path: no "./", no "//", forward slashes.

    Backslashes stay where the row was made of the file's own name.
    """
    images = table["image"]
    paths = pc.if_else(
        table[SOURCE_ROW].is_valid(), pc.replace_substring(images, "\\", "/"), images
    )
    for sign, pattern, text in (("//", "/{2,}", "/"), ("./", r"(^|/)(\./)+", r"\1")):
        # Most datasets have neither, and to look for a text is far faster than for a pattern.
        if pc.any(pc.match_substring(paths, sign)).as_py():
            paths = pc.replace_substring_regex(paths, pattern, text)
    images = pc.if_else(are_uris(images), images, paths)
    return table.set_column(table.column_names.index("image"), "image", images)


def below_root(table: pa.Table, root: Path) -> pa.Table:
    """Returns the table with paths that begin with a slash relative to the root, as in a shop.

    Only those of files that are there, and not at the absolute path.
    """
    images = table["image"]
    rooted = images.filter(pc.starts_with(images, "/")).unique()
    gone = rooted.filter(is_missing(rooted, root))
    there = gone.filter(pc.invert(is_missing(pc.utf8_ltrim(gone, "/"), root)))
    if not len(there):
        return table
    images = pc.if_else(pc.is_in(images, value_set=there), pc.utf8_ltrim(images, "/"), images)
    return table.set_column(table.column_names.index("image"), "image", images)


def is_missing(images: pa.ChunkedArray, root: Path) -> pa.ChunkedArray:
    """Returns of images whether they are paths of files that do not exist.

    Every folder is listed once, which is faster than to ask for each file; only what is not found
    so is asked for by its name (file systems may know a file by several spellings). URIs of other
    schemes than file, and empty texts, are not missing: nobody can tell here, or others complain.

    Args:
      images: paths relative to the root or absolute, or URIs.
      root: the dataset's root.
    """
    asked = images.filter(pc.invert(pc.or_(are_remote(images), pc.equal(images, "")))).unique()
    folders = pc.unique(pc.replace_substring_regex(asked, "[^/]*$", ""))
    listed = [path for folder in folders.to_pylist() for path in _files_in(root, folder)]
    known = pc.is_in(asked.cast(pa.binary()), value_set=pa.array(listed, pa.binary()))
    rest = asked.filter(pc.invert(known))
    with ThreadPoolExecutor() as pool:
        exists = list(pool.map(lambda image: _is_file(root, image), rest.to_pylist()))
    missing = rest.filter(pc.invert(pa.array(exists, pa.bool_())))
    return pc.is_in(images, value_set=missing)


def similar_file(root: Path, image: str) -> str | None:
    """Returns what is beside a missing file and differs from it in case or Unicode form at most.

    What has the very name is a directory, a pipe, or a link that leads nowhere.
    """
    folder, _, name = image.rpartition("/")
    with contextlib.suppress(OSError):
        for other in sorted(os.listdir(root / folder)):
            if _folded(other) == _folded(name):
                return other
    return None


def relative_to_manifest(images: pa.ChunkedArray, root: Path, manifest: Path) -> pa.ChunkedArray:
    """Returns images as a manifest names them.

    Args:
      images: relative to `root`, absolute, or URIs, which stay.
      root: the dataset's root.
      manifest: the file to be written.

    Returns:
      Paths relative to the manifest's directory for pictures in it or below it, absolute ones for
      others.
    """
    here = os.path.join(os.path.abspath(manifest.parent), "")
    there = os.path.join(os.path.abspath(root), "")
    absolute = pc.or_(are_uris(images), pc.starts_with(images, "/"))
    full = pc.if_else(absolute, images, pc.binary_join_element_wise(there, images, ""))
    inside = pc.starts_with(full, here)
    return pc.if_else(inside, pc.utf8_slice_codeunits(full, start=len(here)), full)


def _matches(images: pa.ChunkedArray, sign: str, pattern: str) -> pa.ChunkedArray:
    """Returns of texts whether they match a pattern, which needs the sign to be in them."""
    # To look for a text is far faster than for a pattern.
    found = pc.match_substring(images, sign)
    return pc.match_substring_regex(images, pattern) if pc.any(found).as_py() else found


def _files_in(root: Path, folder: str) -> list[bytes]:
    """Returns the paths of files in a folder; none if it cannot be listed.

    As bytes, since names of other files need not be UTF-8.
    """
    prefix = folder.encode("utf-8")
    try:
        with os.scandir(os.fsencode(root / folder)) as entries:
            return [prefix + entry.name for entry in entries if entry.is_file()]
    except (OSError, ValueError):
        return []


def _is_file(root: Path, image: str) -> bool:
    try:
        return image_path(image, root).is_file()
    except (OSError, ValueError, RejectedPicture):
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
