"""Preparing a dataset: every picture of a manifest into ArrayRecord shards, by many processes.

The work goes shard by shard, a shard being a fixed range of the manifest's rows. A finished shard
is kept when the work is interrupted, and nothing in it depends on how the work was shared out: the
result is the same bytes for any number of processes and interruptions.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
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
from apparel_embed.common.files import (
    atomic_path,
    disk_errors_as_user_errors,
    fingerprint_files,
    read_json,
    sync_tree,
    write_json,
)
from apparel_embed.common.locks import only_writer
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.manifest import (
    BOX_COLUMNS,
    RESERVED_COLUMN,
    hold_out,
    read_manifest,
)
from apparel_embed.data.picture_pool import PictureTask, prepare_pictures
from apparel_embed.data.pictures import Picture, PictureSettings
from apparel_embed.data.prepare_plan import (
    USUAL_VAL_FRACTION,
    PrepareConfig,
    check_same,
    make_plan,
    read_plan,
)
from apparel_embed.data.prepared import (
    DATASET_FILE,
    INDEX_FILE,
    REJECTS_FILE,
    PreparedDataset,
    partial_directory,
    shard_name,
)
from apparel_embed.data.text_tables import rows_in_file
from apparel_embed.data.verticals import map_verticals

# JPEG does not compress further; single records are to be read without their neighbours.
_WRITER_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"
_PLAN_FILE = "plan.json"
_PROGRESS_DIRECTORY = "progress"
_PICTURES_PER_TASK = 16


def prepare(config: PrepareConfig, processes: int = 0) -> PreparedDataset:
    """Prepares a dataset, goes on with an interrupted one, or finds it finished.

    Args:
      config: what to prepare, and how.
      processes: number of worker processes, 0 for one per core. It does not change the result.
        They are spawned, so a script that calls this needs `if __name__ == "__main__":`.

    Returns:
      The finished dataset; `reject_count` tells how many pictures could not be used.

    Raises:
      UserError: the manifest is wrong, no picture can be used, `output` or its partial directory
        holds something else, or another process is preparing the same output.

    Example:
      >>> config = PrepareConfig("data/manifest.csv", "data/small", max_side=24)
      >>> dataset = prepare(config, processes=1)
      >>> len(dataset), dataset.verticals
      (64, ('bags', 'dresses'))
    """
    if processes < 0:
        raise UserError(f"--processes={processes} is not allowed; it must be at least 0")
    config, table = _settled(config)
    table, rows = _read_rows(config, table)
    plan = make_plan(config, table)
    output = Path(config.output)
    if _is_finished(output, plan):
        logging.info("%s: already prepared", output)
        return PreparedDataset.open(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be made: {error.strerror}") from error
    partial = partial_directory(output)
    with disk_errors_as_user_errors(output), only_writer(output):
        # Another process may have finished it in between.
        if _is_finished(output, plan):
            return PreparedDataset.open(output)
        partial.mkdir(exist_ok=True)
        if (partial / DATASET_FILE).exists():
            check_same(partial, read_plan(partial / DATASET_FILE), plan)
        else:
            _write_dataset(partial, plan, table, rows, config, processes)
        shutil.rmtree(partial / _PROGRESS_DIRECTORY, ignore_errors=True)
        (partial / _PLAN_FILE).unlink(missing_ok=True)
        os.replace(partial, output)
    return PreparedDataset.open(output)


@dataclasses.dataclass(frozen=True)
class PreparePlan:
    """What `prepare` would do.

    Attributes:
      state: in words.
      todo: pictures to prepare.
      dataset: the finished dataset, or one whose records are the manifest's rows, without pictures
        and fingerprint.
    """

    state: str
    todo: int
    dataset: PreparedDataset


def plan_prepare(config: PrepareConfig, table: pa.Table | None = None) -> PreparePlan:
    """Tells what `prepare` would do, and writes nothing; its errors are that one's.

    Args:
      config: what to prepare, and how.
      table: rows of a manifest that is not written yet; without, it is read.
    """
    is_written = table is None
    config, table = _settled(config, table)
    table, _ = _read_rows(config, table)
    output, state, todo = Path(config.output), "to do", table.num_rows
    partial = partial_directory(output)
    if is_written and (output.exists() or partial.exists()):
        plan = make_plan(config, table)
        if _is_finished(output, plan):
            return PreparePlan("finished", 0, PreparedDataset.open(output))
        if (partial / _PLAN_FILE).is_file():
            check_same(partial, read_plan(partial / _PLAN_FILE), plan)
            shards = range(_shard_count(table, config))
            left = [shard for shard in shards if _progress(partial, shard) is None]
            todo = sum(len(_shard_rows(shard, table, config)) for shard in left)
            state = "to be gone on with"
    index = table.add_column(0, "record", pa.array(np.arange(table.num_rows, dtype=np.int64)))
    info = {"fingerprint": "", "counts": _counts(index), "shards": [], "rejects": 0}
    return PreparePlan(state, todo, PreparedDataset(output, info, index))


def _settled(
    config: PrepareConfig, table: pa.Table | None = None
) -> tuple[PrepareConfig, pa.Table]:
    """Returns the same with the share to hold out decided, and the manifest's rows."""
    if table is None:
        table = read_manifest(config.manifest)
    if config.val_fraction is not None:
        return config, table
    has_val = pc.any(pc.equal(table["split"], "val")).as_py()
    fraction = 0.0 if has_val else USUAL_VAL_FRACTION
    return dataclasses.replace(config, val_fraction=fraction), table


def _read_rows(config: PrepareConfig, table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Returns the manifest's rows to prepare, and at which index each stands in the manifest."""
    table = table.append_column(RESERVED_COLUMN, pa.array(np.arange(table.num_rows)))
    table = map_verticals(table, config.map_verticals)
    if config.val_fraction:
        known = table.num_rows
        table = hold_out(table, config.val_fraction, config.val_group_column, config.seed)
        if table.num_rows < known:
            logging.info(
                "%d unlabelled pictures are left out: their %s is held out for split val",
                known - table.num_rows,
                config.val_group_column,
            )
    return table.drop_columns([RESERVED_COLUMN]), table[RESERVED_COLUMN].to_numpy()


def _is_finished(output: Path, plan: dict[str, Any]) -> bool:
    """Returns whether `output` is done; raises a UserError if it is something else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / DATASET_FILE).is_file():
        raise UserError(
            f"--output={output} exists and is no prepared dataset; give another --output"
        )
    check_same(output, read_plan(output / DATASET_FILE), plan)
    return True


def _write_dataset(
    partial: Path,
    plan: dict[str, Any],
    table: pa.Table,
    rows: np.ndarray,
    config: PrepareConfig,
    processes: int,
) -> None:
    """Fills `partial`, keeping what an earlier run finished; writes dataset.json last."""
    _start_or_resume(partial, plan)
    rejects = _write_shards(partial, table, config, processes)
    _write_rejects(partial / REJECTS_FILE, config, table, rows, rejects)
    if len(rejects) == table.num_rows:
        kept = partial.with_name(f"{Path(config.output).name}.{REJECTS_FILE}")
        os.replace(partial / REJECTS_FILE, kept)
        shutil.rmtree(partial)
        raise UserError(
            f"{config.manifest}: none of the {table.num_rows} pictures can be used, most often: "
            f"{_most_frequent(rejects)}; all reasons are in {kept}"
        )
    if rejects:
        logging.warning(
            "%d of %d pictures were rejected, most often: %s; all reasons are in %s",
            len(rejects),
            table.num_rows,
            _most_frequent(rejects),
            Path(config.output) / REJECTS_FILE,
        )
    index = table.filter(pa.array(~np.isin(np.arange(table.num_rows), list(rejects))))
    index = index.add_column(0, "record", pa.array(np.arange(index.num_rows, dtype=np.int64)))
    pq.write_table(index, partial / INDEX_FILE, compression="zstd")
    shards = [_progress(partial, shard) or {} for shard in range(_shard_count(table, config))]
    files = [shard["file"] for shard in shards]
    info = {
        **plan,
        "fingerprint": fingerprint_files([partial / name for name in [*files, INDEX_FILE]]),
        "records": index.num_rows,
        "rejects": len(rejects),
        "counts": _counts(index),
        "shards": [{name: s[name] for name in ("file", "records", "bytes")} for s in shards],
    }
    sync_tree(partial)
    write_json(partial / DATASET_FILE, info)


def _start_or_resume(partial: Path, plan: dict[str, Any]) -> None:
    """Records the plan in an empty directory, or checks that it is the plan found there."""
    for leftover in [*partial.glob(".*"), *(partial / _PROGRESS_DIRECTORY).glob(".*")]:
        leftover.unlink()
    if (partial / _PLAN_FILE).is_file():
        check_same(partial, read_plan(partial / _PLAN_FILE), plan)
    elif any(partial.iterdir()):
        raise UserError(f"{partial} exists and was not made by prepare; remove it")
    write_json(partial / _PLAN_FILE, plan)


def _write_shards(
    partial: Path, table: pa.Table, config: PrepareConfig, processes: int
) -> dict[int, str]:
    """Writes the shards that are not finished yet; returns the reason for each rejected row."""
    rejects: dict[int, str] = {}
    records = 0
    shards = _shard_count(table, config)
    todo = [shard for shard in range(shards) if _progress(partial, shard) is None]
    settings = PictureSettings(
        config.max_side, config.crop_margin, config.jpeg_quality, config.max_pixels
    )
    tasks = (task for shard in todo for task in _tasks(table, _shard_rows(shard, table, config)))
    stream = prepare_pictures(tasks, Path(config.manifest).parent, settings, processes)
    finished = sum(len(_shard_rows(shard, table, config)) for shard in set(range(shards)) - {*todo})
    logging.info("%s: preparing %d images", config.output, table.num_rows - finished)
    bar = progress_bar(total=table.num_rows, initial=finished, what="prepare", unit="images")
    with bar, contextlib.closing(stream) as pictures:
        for shard in range(shards):
            rows = _shard_rows(shard, table, config)
            done = _progress(partial, shard)
            if done is None:
                path = partial / shard_name(shard, shards)
                done = _write_shard(path, rows, pictures, table, records)
                write_json(_progress_path(partial, shard), done)
                bar.update(len(rows))
            records += done["records"]
            rejects.update((int(row), reason) for row, reason in done["rejects"])
    return rejects


def _tasks(table: pa.Table, rows: range) -> Iterator[PictureTask]:
    """Yields the pictures of `rows`, in order, in parts fit for one worker."""
    part = table.select(["image", *BOX_COLUMNS]).slice(rows.start, len(rows))
    pictures = [
        (image, None if box[0] is None else tuple(box))
        for image, *box in zip(*(column.to_pylist() for column in part.columns))
    ]
    for start in range(0, len(pictures), _PICTURES_PER_TASK):
        yield pictures[start : start + _PICTURES_PER_TASK]


def _write_shard(
    path: Path,
    rows: range,
    pictures: Iterator[Picture | str],
    table: pa.Table,
    first_record: int,
) -> dict[str, Any]:
    """Writes one shard; returns what is to be remembered of it."""
    rejects = []
    record = first_record
    with atomic_path(path) as temporary:
        try:
            writer = array_record_module.ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
            for row in rows:
                picture = next(pictures)
                if isinstance(picture, str):
                    rejects.append([row, picture])
                else:
                    writer.write(_serialise(record, table, row, picture))
                    record += 1
            writer.close()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: cannot be written ({reason}); finished shards are kept: make room and "
                "run the same command again"
            ) from error
        size = temporary.stat().st_size
    return {
        "file": path.name,
        "records": record - first_record,
        "bytes": size,
        "rejects": rejects,
    }


def _serialise(record: int, table: pa.Table, row: int, picture: Picture) -> bytes:
    """Returns the tf.train.Example of one record."""
    # Imported here: the workers import this module too, and need not wait for TensorFlow.
    from tensorflow.train import Example

    example = Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(picture.jpeg)
    for name in ("item_id", "vertical", "split", "role"):
        feature[name].bytes_list.value.append(table[name][row].as_py().encode("utf-8"))
    for name, number in (
        ("record", record),
        ("height", picture.height),
        ("width", picture.width),
    ):
        feature[name].int64_list.value.append(number)
    return example.SerializeToString(deterministic=True)


def _shard_count(table: pa.Table, config: PrepareConfig) -> int:
    return -(-table.num_rows // config.shard_records)


def _shard_rows(shard: int, table: pa.Table, config: PrepareConfig) -> range:
    """Returns the rows of the manifest that belong to a shard."""
    start = shard * config.shard_records
    return range(start, min(start + config.shard_records, table.num_rows))


def _progress_path(partial: Path, shard: int) -> Path:
    return partial / _PROGRESS_DIRECTORY / f"{shard:05d}.json"


def _progress(partial: Path, shard: int) -> dict[str, Any] | None:
    """Returns what `_write_shard` told of a finished shard; None if it is not finished."""
    path = _progress_path(partial, shard)
    if not path.is_file():
        return None
    done = read_json(path)
    file = partial / done["file"]
    return done if file.is_file() and file.stat().st_size == done["bytes"] else None


def _write_rejects(
    path: Path,
    config: PrepareConfig,
    table: pa.Table,
    rows: np.ndarray,
    rejects: dict[int, str],
) -> None:
    """Writes rejects.csv; its rows are counted as in the manifest's error messages."""
    indices = sorted(rejects)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "row", "reason"])
        for index, row in zip(indices, rows_in_file(config.manifest, rows[indices])):
            writer.writerow([table["image"][index].as_py(), row, rejects[index]])


def _most_frequent(rejects: dict[int, str]) -> str:
    """Returns the most frequent reason, and how often."""
    ((reason, count),) = collections.Counter(rejects.values()).most_common(1)
    return f"{reason} ({count})"


def _counts(index: pa.Table) -> dict[str, dict[str, int]]:
    """Returns the number of records per vertical and split, verticals sorted."""
    groups = index.group_by(["vertical", "split"]).aggregate([("record", "count")])
    counts: dict[str, dict[str, int]] = {}
    for row in sorted(groups.to_pylist(), key=lambda row: (row["vertical"], row["split"])):
        counts.setdefault(row["vertical"], {})[row["split"]] = row["record_count"]
    return counts
