"""Benchmark of work on large manifests, relative to its lower bound: reading the file.

Each task is measured in its own process, which runs this module; no images are read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from apparel_embed.benchmarks.harness import Rows, measure, measure_modules, ratio
from apparel_embed.common.errors import UserError
from apparel_embed.common.files import write_json
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.data.hold_out import hold_out
from apparel_embed.data.manifest import BOX_COLUMNS, RESERVED_COLUMN, read_manifest
from apparel_embed.data.prepared import DATASET_FILE, INDEX_FILE, SCHEMA_VERSION, PreparedDataset

_CSV, _PARQUET, _PREPARED = "manifest.csv", "manifest.parquet", "prepared"
_READ_CSV, _READ_PARQUET = "read_csv", "read_parquet"
MEASURED = {
    _READ_CSV: ("pyarrow reads the CSV file", _READ_CSV),
    "load_csv": ("read_manifest reads it and checks every value", _READ_CSV),
    _READ_PARQUET: ("pyarrow reads the Parquet file", _READ_PARQUET),
    "load_parquet": ("read_manifest reads it and checks every value", _READ_PARQUET),
    "split": ("hold_out moves a tenth of the items to val", _READ_PARQUET),
    "open": ("PreparedDataset.open, and a select by split, verticals, roles", _READ_PARQUET),
    "sampler": ("PKSampler of all training images, and its first batch", _READ_PARQUET),
}
"""Tasks by name: a description, and the task that is the lower bound of their time."""
_VERTICALS = 20
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class DataBenchmark:
    """Settings of the benchmark."""

    rows: Sequence[int] = setting((1_000_000, 10_000_000), "rows per manifest", 100, 10**8)
    images_per_item: int = setting(4, "rows per item", 2, 50)
    boxes: bool = setting(True, "give every row a box")
    rounds: int = setting(1, "how many times each task is started, in turns", 1)
    directory: Path | None = setting(
        None,
        "directory for the manifests, which are removed afterwards; ten million rows take about "
        "1.2 GB; by default the system's directory for temporary files",
    )
    seed: int = seed_setting("the manifests")


def measure_data(config: DataBenchmark) -> Rows:
    """Measures each task at each number of rows.

    Returns:
      A row per task: times, peak memory of its process, and its CPU time over the lower bound's.

    Raises:
      UserError: if the directory cannot be written to.
    """
    found: Rows = []
    for count in config.rows:
        with _directory_in(config.directory) as place:
            settings = {**dataclasses.asdict(config), "rows": count, "directory": place}
            make = measure_modules("data", {"make": {"name": "make", **settings}}, 1)["make"]
            if make.why_not:
                raise UserError(f"cannot create a manifest of {count:,} rows: {make.why_not}")
            tasks = {name: {"name": name, **settings} for name in MEASURED}
            times = measure_modules("data", tasks, config.rounds)
        found += [
            {
                "rows": count,
                "task": name,
                "seconds": times[name].seconds,
                "cpu_seconds": times[name].cpu_seconds,
                "peak_mb": times[name].peak_mb,
                "times_floor": ratio(times[name].cpu_seconds, times[floor].cpu_seconds),
                "what": times[name].why_not or what,
            }
            for name, (what, floor) in MEASURED.items()
        ]
    return found


def _directory_in(directory: Path | None) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=directory)
    except OSError as error:
        where = f"--directory={directory}" if directory else "directory for temporary files"
        raise UserError(f"{where}: cannot be written to: {error.strerror}") from error


def make_manifest(rows: int, images_per_item: int, boxes: bool, seed: int) -> pa.Table:
    """Returns a manifest of made-up garments, with its rows in random order.

    Args:
      rows: number of rows.
      images_per_item: rows with the same `item_id`.
      boxes: whether every row has a box.
      seed: seed of order, names and boxes.
    """
    random = np.random.default_rng(seed)
    item, view = np.divmod(random.permutation(rows), images_per_item)
    # Ids are not in the order of the items, as in a catalogue that has grown over years.
    names = pa.array(random.permutation(-(-rows // images_per_item))).cast(pa.string())
    item_id = pc.utf8_lpad(names, 8, "0").take(pa.array(item))
    file = pc.binary_join_element_wise(pa.array(view).cast(pa.string()), "jpg", ".")
    verticals = pa.array([f"vertical{number:02d}" for number in range(_VERTICALS)])
    columns = {
        "image": pc.binary_join_element_wise("images", item_id, file, "/"),
        "item_id": item_id,
        "vertical": verticals.take(pa.array(item % _VERTICALS)),
        "split": pa.array(["train", "test"]).take(pa.array((item // _VERTICALS % 10 == 9) * 1)),
        "role": pa.array(["gallery", "query"]).take(pa.array(view % 2)),
    }
    if boxes:
        low, side = random.integers(0, 100, (2, rows)), random.integers(1, 400, (2, rows))
        columns.update(zip(BOX_COLUMNS, (*low, *(low + side))))
    return pa.table(columns)


def _make(table: pa.Table, directory: Path) -> None:
    """Writes the manifest as CSV and Parquet, and a prepared dataset without images."""
    # Unquoted, as written by most programs.
    plain = pyarrow.csv.WriteOptions(quoting_style="none")
    with pyarrow.csv.CSVWriter(directory / _CSV, table.schema, write_options=plain) as csv:
        csv.write_table(table, _CHUNK)
    pq.write_table(table, directory / _PARQUET)
    prepared = directory / _PREPARED
    prepared.mkdir()
    shard = {"file": "records", "records": table.num_rows, "bytes": 0}
    (prepared / "records").touch()
    numbers = pa.array(np.arange(table.num_rows))
    index = table.add_column(0, RESERVED_COLUMN, numbers)
    pq.write_table(index, prepared / INDEX_FILE, compression="zstd")
    info = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": "",
        "records": table.num_rows,
        "rejects": 0,
        "counts": {name: {} for name in table["vertical"].unique().to_pylist()},
        "shards": [shard],
    }
    write_json(prepared / DATASET_FILE, info)


def _open(directory: Path) -> None:
    dataset = PreparedDataset.open(directory / _PREPARED)
    dataset.select(split="train", verticals=dataset.verticals[:3], roles=("gallery", "both"))


def _sample(directory: Path, seed: int) -> Callable[[], object]:
    import tensorflow as tf

    from apparel_embed.data.sampler import PKSampler

    dataset = PreparedDataset.open(directory / _PREPARED)

    def make_and_draw() -> None:
        records = dataset.select(split="train")
        items = dataset.codes("item_id")[0][records]
        sampler = PKSampler.from_items(items, items_per_batch=16, images_per_item=4, seed=seed)
        next(iter(tf.data.Dataset.range(1).map(sampler.batch)))

    return make_and_draw


def _work_of(task: dict[str, Any]) -> Callable[[], object]:
    """Prepares a task and returns the function to measure."""
    name, directory, seed = task["name"], Path(task["directory"]), task["seed"]
    if name == "split":
        table = read_manifest(directory / _PARQUET)
        return lambda: hold_out(table, 0.1, seed=seed)
    if name == "sampler":
        return _sample(directory, seed)
    shape = [task[field] for field in ("rows", "images_per_item", "boxes", "seed")]
    return {
        "make": lambda: _make(make_manifest(*shape), directory),
        "read_csv": lambda: pyarrow.csv.read_csv(directory / _CSV),
        "load_csv": lambda: read_manifest(directory / _CSV),
        "read_parquet": lambda: pq.read_table(directory / _PARQUET),
        "load_parquet": lambda: read_manifest(directory / _PARQUET),
        "open": lambda: _open(directory),
    }[name]


if __name__ == "__main__":
    print(json.dumps(measure(_work_of(json.loads(sys.argv[1])))))
