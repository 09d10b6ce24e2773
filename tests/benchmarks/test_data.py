import tempfile

import numpy as np
import pytest

from apparel_embed.benchmarks import data
from apparel_embed.benchmarks.data import MEASURED, DataBenchmark, make_manifest, measure_data
from apparel_embed.benchmarks.harness import Measured
from apparel_embed.common.errors import UserError


def test_the_error_names_a_directory_that_cannot_be_written_to(tmp_path):
    with pytest.raises(UserError, match=r"--directory=.*nowhere: cannot be written to"):
        measure_data(DataBenchmark([400], directory=tmp_path / "nowhere"))


def test_the_error_mentions_the_default_directory_for_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^directory for temporary files: cannot be written to"):
        measure_data(DataBenchmark([400]))


def test_a_manifest_that_cannot_be_created_is_an_error_and_leaves_no_files(monkeypatch, tmp_path):
    monkeypatch.setattr(
        data, "measure_modules", lambda *_: {"make": Measured(why_not="failed: MemoryError")}
    )
    with pytest.raises(UserError, match=r"^cannot create a manifest of 400 rows: failed: Mem"):
        measure_data(DataBenchmark([400], directory=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_has_its_rows_and_items_in_random_order():
    table = make_manifest(1000, 4, boxes=True, seed=0)
    items, counts = np.unique(table["item_id"].to_numpy(), return_counts=True)
    assert len(items) == 250 and set(counts) == {4}
    assert len(set(table["image"].to_pylist())) == 1000
    assert set(table["split"].to_pylist()) == {"train", "test"}
    assert table["item_id"].to_pylist() != sorted(table["item_id"].to_pylist())
    assert table.equals(make_manifest(1000, 4, boxes=True, seed=0))
    assert make_manifest(100, 4, boxes=False, seed=0).column_names == table.column_names[:5]


def test_tasks_are_compared_with_reading_the_same_file_and_failures_are_reported(monkeypatch):
    found = {
        name: Measured(3.0 * number, 2.0 * number, 10.0)
        for number, name in enumerate(MEASURED, start=1)
    }
    found["open"] = Measured(why_not="failed: killed")
    found["make"] = Measured()
    monkeypatch.setattr(
        data, "measure_modules", lambda name, tasks, _: {one: found[one] for one in tasks}
    )
    rows = {row["task"]: row for row in measure_data(DataBenchmark([100]))}
    ratios = {name: row["times_floor"] for name, row in rows.items()}
    assert ratios == {
        "read_csv": 1,
        "load_csv": 2,
        "read_parquet": 1,
        "load_parquet": pytest.approx(4 / 3),
        "split": pytest.approx(5 / 3),
        "open": None,
        "sampler": pytest.approx(7 / 3),
    }
    assert rows["open"]["what"] == "failed: killed"
