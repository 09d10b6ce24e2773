"""Prepares a dataset: writes all images of a manifest to ArrayRecord shards, in many processes.

A shard is a fixed range of the manifest's rows and does not depend on how the work was distributed:
the result is the same, byte by byte, for any number of processes and interruptions.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import functools
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import logging
from array_record.python import array_record_module

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, fingerprint_files
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.hold_out import hold_out
from apparel_embed.data.image_pool import prepare_images
from apparel_embed.data.images import Box, ImageSettings, PreparedImage
from apparel_embed.data.manifest import RESERVED_COLUMN, boxes_of, read_manifest
from apparel_embed.data.photographs import photographs_of, with_sizes
from apparel_embed.data.prepare_plan import USUAL_VAL_FRACTION, PrepareConfig, make_plan
from apparel_embed.data.prepared import (
    DATASET_FILE,
    INDEX_FILE,
    REJECTS_FILE,
    PreparedDataset,
    shard_name,
)
from apparel_embed.data.text_tables import rows_in_file
from apparel_embed.data.verticals import map_verticals
from apparel_embed.store.sharded import ShardedDirectory

# JPEG does not compress further, and records must be readable without their neighbours.
_WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"


def prepare(config: PrepareConfig, processes: int = 0) -> PreparedDataset:
    """Prepares a dataset, resumes an interrupted one, or finds it finished.

    Args:
      config: what to prepare, and how.
      processes: number of worker processes, 0 for one per core; it does not change the result.
        They are spawned, so a script that calls this needs `if __name__ == "__main__":`.

    Returns:
      The finished dataset; `reject_count` is the number of unusable images.

    Raises:
      UserError: if the manifest is invalid, no image is usable, `output` or its partial directory
        contains something else, or another process is preparing the same output.

    Examples:
      >>> config = PrepareConfig("data/manifest.csv", "data/small", max_side=24)
      >>> dataset = prepare(config, processes=1)
      >>> len(dataset), dataset.verticals
      (64, ('bags', 'dresses'))
    """
    if processes < 0:
        raise UserError(f"--processes={processes}: expected 0 or more")
    work = _Work.of(config)
    write = functools.partial(_write_dataset, work, processes)
    work.directory.make(make_plan(work.config, work.table), write)
    return PreparedDataset.open(config.output)


@dataclasses.dataclass(frozen=True)
class PreparePlan:
    """What `prepare` would do.

    Attributes:
      state: what would be done, in words.
      todo: number of images to prepare.
      dataset: the finished dataset, or one whose records are the manifest's rows, without images
        and fingerprint.
    """

    state: str
    todo: int
    dataset: PreparedDataset


def plan_prepare(config: PrepareConfig, table: pa.Table | None = None) -> PreparePlan:
    """Returns what `prepare` would do, with the same errors, and writes nothing.

    Args:
      config: what to prepare, and how.
      table: rows of a manifest that is not written yet; without it, the manifest is read.
    """
    work = _Work.of(config, table)
    state, todo = "to do", work.table.num_rows
    output, partial = Path(config.output), Path(work.directory.work)
    if table is None and (output.exists() or partial.exists()):
        plan = make_plan(work.config, work.table)
        if work.directory.find_finished(plan):
            return PreparePlan("finished", 0, PreparedDataset.open(output))
        if work.directory.is_begun(plan):
            state = "to be resumed"
            todo = sum(len(work.rows(shard)) for shard in work.directory.missing(work.names))
    index = numbered(work.table)
    info = {
        "fingerprint": "",
        "settings": work.config.settings,
        "counts": counts_of(index),
        "shards": [],
        "rejects": 0,
    }
    return PreparePlan(state, todo, PreparedDataset(output, info, index))


@dataclasses.dataclass(frozen=True)
class _Work:
    """A dataset to prepare.

    Attributes:
      config: configuration, with `val_fraction` set.
      table: rows of the manifest to prepare.
      places: index of each of these rows in the manifest.
      directory: directory to write.
    """

    config: PrepareConfig
    table: pa.Table
    places: np.ndarray
    directory: ShardedDirectory

    @classmethod
    def of(cls, config: PrepareConfig, table: pa.Table | None = None) -> _Work:
        if table is None:
            table = read_manifest(config.manifest)
        if config.val_fraction is None:
            has_val = pc.any(pc.equal(table["split"], "val")).as_py()
            fraction = 0.0 if has_val else USUAL_VAL_FRACTION
            config = dataclasses.replace(config, val_fraction=fraction)
        table = table.append_column(RESERVED_COLUMN, pa.array(np.arange(table.num_rows)))
        table = map_verticals(table, config.map_verticals)
        if config.val_fraction:
            known = table.num_rows
            table = hold_out(table, config.val_fraction, config.val_group_column, config.seed)
            if table.num_rows < known:
                logging.info(
                    "%d unlabelled images are excluded: their %s is held out as split val",
                    known - table.num_rows,
                    config.val_group_column,
                )
        if config.photographs:
            table = photographs_of(table, str(config.manifest))
        places = table[RESERVED_COLUMN].to_numpy()
        directory = ShardedDirectory(str(Path(config.output)), DATASET_FILE, "prepared dataset")
        return cls(config, table.drop_columns([RESERVED_COLUMN]), places, directory)

    @property
    def names(self) -> list[str]:
        """File names of the shards."""
        count = -(-self.table.num_rows // self.config.shard_records)
        return [shard_name(shard, count) for shard in range(count)]

    def rows(self, shard: int) -> range:
        """Returns the rows of the table that belong to a shard."""
        start = shard * self.config.shard_records
        return range(start, min(start + self.config.shard_records, self.table.num_rows))

    def images(self, shard: int) -> Iterator[tuple[str, Box | None]]:
        """Returns the images of a shard, as named in the manifest, with their boxes."""
        part = self.table.slice(self.rows(shard).start, len(self.rows(shard)))
        return zip(part["image"].to_pylist(), boxes_of(part))


def _write_dataset(work: _Work, processes: int) -> dict[str, Any]:
    """Writes everything that no earlier call has finished; returns the entries of dataset.json."""
    config, table, partial = work.config, work.table, Path(work.directory.work)
    shards = _write_shards(work, processes)
    rejects = {row: reason for shard in shards for row, reason in shard["rejects"]}
    _write_rejects(work, rejects, partial / REJECTS_FILE)
    if rejects:
        ((reason, count),) = collections.Counter(rejects.values()).most_common(1)
        most = f"{reason} ({count})"
    if len(rejects) == table.num_rows:
        kept = partial.with_name(f"{Path(config.output).name}.{REJECTS_FILE}")
        os.replace(partial / REJECTS_FILE, kept)
        shutil.rmtree(partial)
        raise UserError(
            f"{config.manifest}: none of the {table.num_rows} images is usable, most frequent "
            f"reason: {most}; all reasons are in {kept}"
        )
    if rejects:
        logging.warning(
            "%d of %d images were rejected, most frequent reason: %s; all reasons are in %s",
            len(rejects),
            table.num_rows,
            most,
            Path(config.output) / REJECTS_FILE,
        )
    index = numbered(table.filter(pa.array(~np.isin(np.arange(table.num_rows), list(rejects)))))
    if config.photographs:
        index = with_sizes(index, [size for shard in shards for size in shard["sizes"]])
    pq.write_table(index, partial / INDEX_FILE, compression="zstd")
    return {
        "fingerprint": fingerprint_files([partial / name for name in [*work.names, INDEX_FILE]]),
        "records": index.num_rows,
        "rejects": len(rejects),
        "counts": counts_of(index),
        "shards": [{name: s[name] for name in ("file", "records", "bytes")} for s in shards],
    }


def _write_shards(work: _Work, processes: int) -> list[dict[str, Any]]:
    """Writes the unfinished shards; returns the entries of all shards."""
    config, table, directory = work.config, work.table, work.directory
    todo = directory.missing(work.names)
    settings = ImageSettings(
        config.max_side, config.crop_margin, config.jpeg_quality, config.max_pixels
    )
    images = itertools.chain.from_iterable(map(work.images, todo))
    stream = prepare_images(images, Path(config.manifest).parent, settings, processes)
    left = sum(len(work.rows(shard)) for shard in todo)
    finished, records = table.num_rows - left, 0
    logging.info("%s: preparing %d images", config.output, left)
    bar = progress_bar(total=table.num_rows, initial=finished, what="prepare", unit="images")
    shards = []
    with bar, contextlib.closing(stream) as prepared:
        for shard, name in enumerate(work.names):
            rows = work.rows(shard)
            if shard in todo:
                path = Path(directory.work, name)
                written = write_shard(path, rows, prepared, table, records)
                if not config.photographs:
                    del written["sizes"]
                directory.remember(shard, written)
                bar.update(len(rows))
            shards.append(directory.recall(shard) or {})
            records += shards[-1]["records"]
    return shards


def write_shard(
    path: Path,
    rows: range,
    images: Iterator[PreparedImage | str],
    table: pa.Table,
    first_record: int,
) -> dict[str, Any]:
    """Writes one shard and returns its entry."""
    rejects, sizes = [], []
    record = first_record
    with atomic_path(path) as temporary:
        try:
            writer = array_record_module.ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
            for row in rows:
                image = next(images)
                if isinstance(image, str):
                    rejects.append([row, image])
                else:
                    writer.write(_serialise(record, table, row, image))
                    sizes.append(image.size)
                    record += 1
            writer.close()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: cannot be written ({reason}); finished shards are kept: free some "
                "space and run the same command again"
            ) from error
        size = temporary.stat().st_size
    records = record - first_record
    return {
        **{"file": path.name, "records": records, "bytes": size, "rejects": rejects},
        "sizes": sizes,
    }


def _serialise(record: int, table: pa.Table, row: int, image: PreparedImage) -> bytes:
    """Returns the tf.train.Example of one record."""
    # Imported here: workers import this module too and need not wait for TensorFlow.
    from tensorflow.train import Example

    example = Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image.jpeg)
    for name in ("item_id", "vertical", "split", "role"):
        feature[name].bytes_list.value.append(table[name][row].as_py().encode("utf-8"))
    numbers = {"record": record, "height": image.height, "width": image.width}
    for name, number in numbers.items():
        feature[name].int64_list.value.append(number)
    return example.SerializeToString(deterministic=True)


def _write_rejects(work: _Work, rejects: dict[int, str], path: Path) -> None:
    """Writes rejects.csv, with row numbers as in error messages about the manifest."""
    indices = sorted(rejects)
    rows = rows_in_file(work.config.manifest, work.places[indices])
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "row", "reason"])
        for index, row in zip(indices, rows):
            writer.writerow([work.table["image"][index].as_py(), row, rejects[index]])


def numbered(table: pa.Table) -> pa.Table:
    """Returns the table with row numbers in a column `record`."""
    numbers = pa.array(np.arange(table.num_rows, dtype=np.int64))
    return table.add_column(0, RESERVED_COLUMN, numbers)


def counts_of(index: pa.Table) -> dict[str, dict[str, int]]:
    """Returns the number of records per vertical and split, verticals sorted."""
    groups = index.group_by(["vertical", "split"]).aggregate([("record", "count")])
    counts: dict[str, dict[str, int]] = {}
    for row in sorted(groups.to_pylist(), key=lambda row: (row["vertical"], row["split"])):
        counts.setdefault(row["vertical"], {})[row["split"]] = row["record_count"]
    return counts
