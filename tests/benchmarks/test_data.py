import errno
import tempfile

import numpy as np
import pytest

from apparel_embed.benchmarks import data
from apparel_embed.benchmarks.data import (
    TASKS,
    DataBenchmark,
    Measurement,
    run_data_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.benchmarks.data_tasks import make_manifest
from apparel_embed.benchmarks.process import ProcessFailed
from apparel_embed.common.errors import UserError


def config_of(**changes):
    arguments = {
        "rows": [400],
        "pictures_per_item": 4,
        "boxes": True,
        "rounds": 1,
        "directory": None,
        "seed": 0,
        **changes,
    }
    return DataBenchmark(**arguments)


@pytest.mark.slow
def test_every_task_is_measured_and_nothing_is_left_behind(tmp_path):
    found = run_data_benchmark(config_of(directory=tmp_path))[400]
    assert list(found) == list(TASKS)
    for measured in found.values():
        assert measured.seconds > 0 and measured.cpu_seconds > 0
        assert measured.peak_mb is None or measured.peak_mb > 10
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--directory=.*nowhere: cannot be written to"):
        run_data_benchmark(config_of(directory=tmp_path / "nowhere"))


def test_without_a_directory_that_of_the_system_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^the place for temporary files: cannot be written to"):
        run_data_benchmark(config_of())


def test_what_else_the_system_refuses_is_not_told_of_the_directory(monkeypatch, tmp_path):
    def refuse(name, task):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(data, "run_module", refuse)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        run_data_benchmark(config_of(directory=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_fails_is_named(monkeypatch, tmp_path):
    def fail(name, task):
        raise ProcessFailed("MemoryError")

    monkeypatch.setattr(data, "run_module", fail)
    with pytest.raises(UserError, match=r"^task make with 400 rows failed: MemoryError$"):
        run_data_benchmark(config_of(directory=tmp_path))


def test_a_manifest_has_its_rows_and_items_in_no_order():
    table = make_manifest(1000, 4, boxes=True, seed=0)
    items, counts = np.unique(table["item_id"].to_numpy(), return_counts=True)
    assert len(items) == 250 and set(counts) == {4}
    assert len(set(table["image"].to_pylist())) == 1000
    assert set(table["split"].to_pylist()) == {"train", "test"}
    assert table["item_id"].to_pylist() != sorted(table["item_id"].to_pylist())
    assert table.equals(make_manifest(1000, 4, boxes=True, seed=0))
    assert make_manifest(100, 4, boxes=False, seed=0).column_names == table.column_names[:5]


RESULTS = {
    100: {
        name: Measurement(3.0 * number, 2.0 * number, 10.0 * number)
        for number, name in enumerate(TASKS, start=1)
    }
}


def test_the_summary_compares_each_with_reading_the_same_file():
    (found,) = summary_of(RESULTS)
    assert found["rows"] == 100
    assert (found["seconds"]["load_csv"], found["cpu_seconds"]["load_csv"]) == (6.0, 4.0)
    assert found["peak_mb"]["split"] == 50.0
    assert found["times_floor"]["read_csv"] == found["times_floor"]["read_parquet"] == 1.0
    assert found["times_floor"]["load_csv"] == pytest.approx(2)
    assert found["times_floor"]["load_parquet"] == pytest.approx(4 / 3)
    assert found["times_floor"]["sampler"] == pytest.approx(7 / 3)


def test_the_table_shows_every_task():
    table = table_of(RESULTS, config_of(boxes=False))
    assert "4 pictures an item, without boxes" in table
    rows = {line.split()[1]: line.split()[2:6] for line in table.splitlines() if " 100 " in line}
    assert list(rows) == list(TASKS)
    assert rows["split"] == ["15.00", "10.00", "50", "1.7"]
