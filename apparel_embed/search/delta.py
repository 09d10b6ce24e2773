"""Applies a delta to an index: a table of images to add, change or remove.

Only images with new content are embedded. Applying the same delta again changes nothing.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.text import counted
from apparel_embed.data.image_pool import prepare_images, read_remote
from apparel_embed.data.images import Box, ImageSettings
from apparel_embed.data.manifest import boxes_of, read_delta
from apparel_embed.search.index import IndexedImage, VectorIndex, Version
from apparel_embed.search.source import content_of, image_key, is_indexed

_IMAGES_AT_ONCE = 1_000
_KINDS = ("added", "changed", "renamed", "removed", "unchanged", "embedded")

Embed = Callable[[Sequence[bytes]], "tuple[np.ndarray, np.ndarray]"]
"""Maps the bytes of JPEG files to embeddings, float32 [n, dim], and their validity, bool [n]."""


@dataclasses.dataclass(frozen=True)
class DeltaSummary:
    """The changes that a delta made, or would make.

    Attributes:
      version: the changed version.
      counts: number of images that are `added`; `changed`, with new or previously unknown content;
        `renamed`, with the same content but another item or vertical; `removed`; `unchanged`; and
        `embedded`, which counts each content once and skips those already in the index.
      unknown: descriptions of the images and items to remove that are not in the index.
      rejected: (image, reason) of the images that could not be embedded; they stay unchanged.
    """

    version: Version
    counts: Mapping[str, int]
    unknown: Sequence[str]
    rejected: Sequence[tuple[str, str]]


@dataclasses.dataclass
class _Changes:
    """Changes collected before they are written, with their summary."""

    counts: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    images: list[IndexedImage] = dataclasses.field(default_factory=list)
    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rejected: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def apply_delta(
    index: VectorIndex,
    version: Version,
    path: Path,
    settings: ImageSettings,
    embed: Embed | None,
    *,
    most_removed: float = 0.1,
) -> DeltaSummary:
    """Applies a delta to a version with a single write; writes nothing if nothing changes.

    Removals come first, whatever the order of the rows: if an item is removed and images of it are
    added, the added images remain.

    Args:
      index: index that contains the version.
      version: complete version to change.
      path: see `read_delta`; image paths are relative to its directory.
      settings: how images are prepared; the same as for the images in the index.
      embed: embeds images; None to only report the changes.
      most_removed: maximum share of the version's images to remove.

    Raises:
      UserError: if the delta is invalid, or too many images would be removed.
    """
    added, removals = read_delta(path)
    rows = _rows_of(added)
    removed, unknown = _named(index, version, removals)
    removed -= {image.key for image, _ in rows}
    if len(removed) > most_removed * version.images:
        raise UserError(
            f"{path}: {len(removed):,} of {version.images:,} images of the index would be "
            f"removed, and --most_removed is {most_removed:g}. Nothing was changed"
        )
    changes = _Changes()
    changes.counts["removed"] = len(removed)
    with progress_bar(total=len(rows), what="delta", unit="images") as bar:
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            some = rows[start : start + _IMAGES_AT_ONCE]
            _collect(index, version, some, _prepared(path, some, settings), embed, changes)
            bar.update(len(some))
    if embed and (changes.images or removed):
        vectors = [changes.vectors[one.content] for one in changes.images]
        embeddings = np.array(vectors, np.float32).reshape(-1, version.dim)
        version = index.change(version, changes.images, embeddings, sorted(removed))
    return DeltaSummary(version, changes.counts, unknown, changes.rejected)


def _rows_of(added: pa.Table) -> list[tuple[IndexedImage, Box | None]]:
    """Returns the gallery images to add, without duplicates, and their boxes."""
    if not added.num_rows:
        return []
    kept = [
        is_indexed(*one) for one in zip(*(added[name].to_pylist() for name in ("role", "split")))
    ]
    left_out = kept.count(False)
    if left_out:
        logging.info("left out %s of role query or split unlabelled", counted(left_out, "row"))
    added = added.filter(pa.array(kept, pa.bool_()))
    rows = {}
    names = (added[name].to_pylist() for name in ("image", "item_id", "vertical"))
    for image, item, vertical, box in zip(*names, boxes_of(added)):
        key = image_key(image, box)
        rows[key] = IndexedImage(key, image, item, vertical), box
    return list(rows.values())


def _named(index: VectorIndex, version: Version, rows: pa.Table) -> tuple[set[str], list[str]]:
    """Returns the keys of the images to remove, and descriptions of what is not in the index."""
    images = [name if name.strip() else "" for name in rows["image"].to_pylist()]
    items = [name.strip() for name in rows["item_id"].to_pylist()]
    named = list(zip(images, items, boxes_of(rows)))
    boxed = {image_key(image, box): image for image, _, box in named if image and box}
    whole = {image for image, _, box in named if image and not box}
    every = {item for image, item, _ in named if not image}
    keys = {*index.keys(version, images=sorted({*boxed, *whole}))} if boxed or whole else set()
    keys |= {*index.keys(version, items=sorted(every))} if every else set()
    found = [image for image, _ in index.find(version, sorted(keys))]
    known = {image.image for image in found}, {image.item for image in found}
    unknown = [f"image {image}" for image in sorted(whole - known[0] - keys)]
    unknown += [f"image {image} with this box" for key, image in boxed.items() if key not in keys]
    return keys, unknown + [f"item {item}" for item in sorted(every - known[1])]


def _prepared(
    path: Path,
    rows: Sequence[tuple[IndexedImage, Box | None]],
    settings: ImageSettings,
) -> Iterator[bytes | str]:
    """Yields the JPEG of each image, or the reason for its rejection."""
    images = ((one.image, box) for one, box in rows)
    with warnings.catch_warnings():
        # Pillow warns about odd metadata; warning filters are not per thread.
        warnings.simplefilter("ignore")
        for found in prepare_images(images, path.parent, settings, threads=True, fetch=read_remote):
            yield found if isinstance(found, str) else found.jpeg


def _collect(
    index: VectorIndex,
    version: Version,
    rows: Sequence[tuple[IndexedImage, Box | None]],
    prepared: Iterator[bytes | str],
    embed: Embed | None,
    changes: _Changes,
) -> None:
    """Collects the changes for some images, and embeds those without a known vector."""
    jpegs: dict[str, bytes] = {}
    wanted: list[IndexedImage] = []
    for (image, _), jpeg in zip(rows, prepared):
        if isinstance(jpeg, str):
            changes.rejected.append((image.image, jpeg))
            continue
        wanted.append(dataclasses.replace(image, content=content_of(jpeg)))
        jpegs[wanted[-1].content] = jpeg
    found = index.find(version, [one.key for one in wanted], [*jpegs])
    before = {image.key: image for image, _ in found}
    changes.vectors.update({image.content: vector for image, vector in found if image.content})
    new = [content for content in jpegs if content not in changes.vectors]
    invalid = _embed(new, jpegs, embed, changes)
    for image in wanted:
        old = before.get(image.key)
        if image.content in invalid:
            changes.rejected.append((image.image, "the model could not embed it"))
            continue
        kind = _kind(old, image)
        changes.counts[kind] += 1
        if kind == "renamed" and old:
            image = dataclasses.replace(image, record=old.record)
        if kind != "unchanged":
            changes.images.append(image)


def _embed(
    contents: Sequence[str], jpegs: Mapping[str, bytes], embed: Embed | None, changes: _Changes
) -> set[str]:
    """Embeds contents and adds their vectors; returns those that the model could not embed."""
    changes.counts["embedded"] += len(contents)
    if not embed or not contents:
        changes.vectors.update(dict.fromkeys(contents, np.empty(0)))
        return set()
    embeddings, valid = embed([jpegs[content] for content in contents])
    changes.vectors.update(
        {one: vector for one, vector, good in zip(contents, embeddings, valid) if good}
    )
    return {one for one, good in zip(contents, valid) if not good}


def _kind(old: IndexedImage | None, new: IndexedImage) -> str:
    if old is None:
        return "added"
    if old.content != new.content:
        return "changed"
    is_same = (old.item, old.vertical) == (new.item, new.vertical)
    return "unchanged" if is_same else "renamed"
