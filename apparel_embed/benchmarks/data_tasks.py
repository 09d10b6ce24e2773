"""Does one thing with a manifest of many rows and measures it: run as a process of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from apparel_embed.benchmarks.measure import measure_once
from apparel_embed.common.files import write_json
from apparel_embed.data.hold_out import hold_out
from apparel_embed.data.manifest import BOX_COLUMNS, RESERVED_COLUMN, read_manifest
from apparel_embed.data.prepared import DATASET_FILE, INDEX_FILE, SCHEMA_VERSION, PreparedDataset

CSV_FILE, PARQUET_FILE, PREPARED = "manifest.csv", "manifest.parquet", "prepared"
_VERTICALS = 20
_CHUNK = 1 << 20


def main() -> None:
    """Prints the measurement as JSON; argv[1] is JSON too."""
    task = json.loads(sys.argv[1])
    print(json.dumps(measure_once(TASKS[task["name"]](task, Path(task["directory"])))))


def make_manifest(rows: int, pictures_per_item: int, boxes: bool, seed: int) -> pa.Table:
    """Returns a manifest of garments that do not exist, its rows in no order.

    Args:
      rows: number of rows.
      pictures_per_item: rows with the same `item_id`.
      boxes: whether every row has a box.
      seed: of order, names and boxes.
    """
    random = np.random.default_rng(seed)
    item, view = np.divmod(random.permutation(rows), pictures_per_item)
    # Names in another order than that of items, as shops number them over the years.
    names = pa.array(random.permutation(-(-rows // pictures_per_item))).cast(pa.string())
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


def _make(task: dict, directory: Path) -> Callable[[], object]:
    """Writes the manifest as CSV and as Parquet, and what of a prepared dataset is no picture."""

    def make() -> None:
        table = make_manifest(task["rows"], task["pictures_per_item"], task["boxes"], task["seed"])
        # Unquoted, as most programs write it.
        plain = pyarrow.csv.WriteOptions(quoting_style="none")
        with pyarrow.csv.CSVWriter(directory / CSV_FILE, table.schema, write_options=plain) as csv:
            csv.write_table(table, _CHUNK)
        pq.write_table(table, directory / PARQUET_FILE)
        prepared = directory / PREPARED
        prepared.mkdir()
        shard = {"file": "records", "records": table.num_rows, "bytes": 0}
        (prepared / shard["file"]).touch()
        numbers = pa.array(np.arange(table.num_rows))
        pq.write_table(
            table.add_column(0, RESERVED_COLUMN, numbers), prepared / INDEX_FILE, compression="zstd"
        )
        info = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": "",
            "records": table.num_rows,
            "rejects": 0,
            "counts": {name: {} for name in table["vertical"].unique().to_pylist()},
            "shards": [shard],
        }
        write_json(prepared / DATASET_FILE, info)

    return make


def _load(file: str) -> Callable[[dict, Path], Callable[[], object]]:
    return lambda task, directory: lambda: read_manifest(directory / file)


def _split(task: dict, directory: Path) -> Callable[[], object]:
    table = read_manifest(directory / PARQUET_FILE)
    return lambda: hold_out(table, 0.1, seed=task["seed"])


def _open(task: dict, directory: Path) -> Callable[[], object]:
    def open_and_select() -> None:
        dataset = PreparedDataset.open(directory / PREPARED)
        dataset.select(split="train", verticals=dataset.verticals[:3], roles=("gallery", "both"))

    return open_and_select


def _sample(task: dict, directory: Path) -> Callable[[], object]:
    import tensorflow as tf

    from apparel_embed.data.sampler import PKSampler

    dataset = PreparedDataset.open(directory / PREPARED)

    def make_and_draw() -> None:
        records = dataset.select(split="train")
        sampler = PKSampler.from_items(
            dataset.codes("item_id")[0][records],
            items_per_batch=16,
            pictures_per_item=4,
            seed=task["seed"],
        )
        next(iter(tf.data.Dataset.range(1).map(sampler.batch)))

    return make_and_draw


TASKS: dict[str, Callable[[dict, Path], Callable[[], object]]] = {
    "make": _make,
    "read_csv": lambda task, directory: lambda: pyarrow.csv.read_csv(directory / CSV_FILE),
    "load_csv": _load(CSV_FILE),
    "read_parquet": lambda task, directory: lambda: pq.read_table(directory / PARQUET_FILE),
    "load_parquet": _load(PARQUET_FILE),
    "split": _split,
    "open": _open,
    "sampler": _sample,
}
"""From a task's arguments and its directory to what is measured, by name."""


if __name__ == "__main__":
    main()
