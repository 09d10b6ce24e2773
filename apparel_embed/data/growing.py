"""A prepared dataset grown from an earlier one: a share of its images, then new ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_files
from apparel_embed.data.columns import is_blank
from apparel_embed.data.images import PreparedImage, image_size
from apparel_embed.data.manifest import BOX_COLUMNS, RESERVED_COLUMN, UNLABELLED
from apparel_embed.data.prepare import PreparePlan, counts_of, numbered, write_shard
from apparel_embed.data.prepared import (
    DATASET_FILE,
    INDEX_FILE,
    SCHEMA_VERSION,
    PreparedDataset,
    shard_name,
)
from apparel_embed.store.sharded import ShardedDirectory

_SHARD_RECORDS = 4096
_READ_AT_ONCE = 256
# Settings of `prepare` that change what a model sees.
_SEEN = ("max_side", "crop_margin", "jpeg_quality")


@dataclasses.dataclass(frozen=True, eq=False)
class GrownFrom:
    """The parts of a grown dataset.

    Attributes:
      old: the earlier dataset.
      replayed: int64 [n], its records that are kept: the first n of the grown dataset.
      new: the dataset whose records follow.
    """

    old: PreparedDataset
    replayed: np.ndarray
    new: PreparedDataset


def replayed_records(old: PreparedDataset, share: float, seed: int) -> np.ndarray:
    """Returns the records of an earlier dataset that are kept: int64, ascending.

    Args:
      old: the earlier dataset.
      share: share, 0 to 1, of the train and unlabelled images of each vertical to keep; at least
        one train image of each is kept. All val and test images are kept.
      seed: seed of the choice.
    """
    random = np.random.default_rng(seed)
    kept = [old.select(split=split) for split in ("val", "test")]
    # At least one labelled image: a student's verticals are those it is trained on.
    for split, least in (("train", 1), (UNLABELLED, 0)):
        for vertical in old.verticals:
            records = old.select(split=split, verticals=[vertical])
            kept.append(random.permutation(records)[: max(least, round(share * len(records)))])
    return np.sort(np.concatenate(kept))


def grow(grown: GrownFrom, output: Path) -> PreparedDataset:
    """Writes a dataset with some images of an earlier one, then all of a new one, or finds it.

    Images are copied unchanged. Additional columns are kept if both datasets have them.

    Args:
      grown: the parts of the dataset.
      output: directory to create.

    Raises:
      UserError: if the directory was made with other parts, the datasets share an image or an item,
        or their images were prepared differently.
    """
    directory = _directory(output)

    def write() -> dict[str, Any]:
        index, partial = _index(grown), Path(directory.work)
        starts = range(0, index.num_rows, _SHARD_RECORDS)
        images, shards = _images(grown), []
        for number, start in enumerate(starts):
            rows = range(start, min(start + _SHARD_RECORDS, index.num_rows))
            path = partial / shard_name(number, len(starts))
            shards.append(write_shard(path, rows, images, index, start))
        pq.write_table(index, partial / INDEX_FILE, compression="zstd")
        names = [*(shard["file"] for shard in shards), INDEX_FILE]
        return {
            "fingerprint": fingerprint_files([partial / name for name in names]),
            "records": index.num_rows,
            "rejects": grown.new.reject_count,
            "counts": counts_of(index),
            "shards": [{key: s[key] for key in ("file", "records", "bytes")} for s in shards],
        }

    directory.make(_plan(grown), write)
    return PreparedDataset.open(output)


def plan_growing(grown: GrownFrom, output: Path) -> PreparePlan:
    """Returns what `grow` would do, with the same errors, and writes nothing."""
    # A dataset that is only planned has no fingerprint to compare.
    if grown.new.fingerprint and _directory(output).find_finished(_plan(grown)):
        return PreparePlan("finished", 0, PreparedDataset.open(output))
    index = _index(grown)
    info = {"fingerprint": "", "counts": counts_of(index), "shards": [], "rejects": 0}
    return PreparePlan("to do", index.num_rows, PreparedDataset(output, info, index))


def _directory(output: Path) -> ShardedDirectory:
    return ShardedDirectory(str(output), DATASET_FILE, "prepared dataset")


def _plan(grown: GrownFrom) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        # The search service prepares queries with these.
        "settings": grown.old.info["settings"],
        "old": grown.old.fingerprint,
        "new": grown.new.fingerprint,
        "replayed": hashlib.sha256(grown.replayed.astype("<i8").tobytes()).hexdigest(),
    }


def _index(grown: GrownFrom) -> pa.Table:
    """Returns the rows of a grown dataset.

    Raises:
      UserError: if both have an item or an image with the same box, which an index would take for
        one; or if their images were prepared differently.
    """
    old, new = grown.old, grown.new
    for name in _SEEN:
        before, now = (dataset.info["settings"][name] for dataset in (old, new))
        if before != now:
            raise UserError(
                f"{new.directory}: was prepared with --{name}={now}, but {old.directory} with "
                f"{before}; they must be equal, as a service prepares all queries the same way"
            )
    names = [name for name in old.index.column_names if name in new.index.column_names]
    first, second = old.index.take(grown.replayed).select(names), new.index.select(names)
    second = second.cast(first.schema)
    again = pc.is_in(_places(second), value_set=_places(first))
    if pc.any(again).as_py():
        image = second["image"].filter(again)[0].as_py()
        raise UserError(
            f"{new.directory}: image {image!r} is also in {old.directory}; images of a new "
            "manifest need different paths"
        )
    shared = pc.and_not(
        pc.is_in(second["item_id"], value_set=first["item_id"]), is_blank(second["item_id"])
    )
    if pc.any(shared).as_py():
        item = second["item_id"].filter(shared)[0].as_py()
        raise UserError(
            f"{new.directory}: item_id {item!r} also names an item of another vertical in "
            f"{old.directory}; give new items different ids"
        )
    return numbered(pa.concat_tables([first, second]).drop_columns([RESERVED_COLUMN]))


def _places(index: pa.Table) -> pa.Array:
    """Returns image and box of each row, as text."""
    box = [name for name in BOX_COLUMNS if name in index.column_names]
    edges = (pc.cast(index[name], pa.string()) for name in box)
    places = pc.binary_join_element_wise(index["image"], *edges, ",", null_handling="replace")
    return places.combine_chunks()


def _images(grown: GrownFrom) -> Iterator[PreparedImage]:
    """Yields the images of a grown dataset in record order."""
    parts = ((grown.old, grown.replayed), (grown.new, np.arange(len(grown.new))))
    for dataset, records in parts:
        for start in range(0, len(records), _READ_AT_ONCE):
            for jpeg in dataset.read_images(records[start : start + _READ_AT_ONCE]):
                width, height = image_size(jpeg)
                yield PreparedImage(jpeg, height, width, (width, height))
