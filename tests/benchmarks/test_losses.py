from pathlib import Path

import pytest

from apparel_embed.benchmarks import losses, process
from apparel_embed.benchmarks.losses import (
    ADDONS,
    FLOOR,
    OURS,
    PYTORCH,
    LossBenchmark,
    Measurement,
    run_loss_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.benchmarks.process import ProcessFailed
from apparel_embed.common.errors import UserError


def config_of(**changes):
    arguments = {
        "batch_sizes": [16],
        "pictures_per_item": 4,
        "implementations": [OURS, ADDONS, FLOOR],
        "dim": 8,
        "margin": 0.3,
        "rounds": 1,
        "seconds": 0.0,
        "pytorch_environment": Path("/nowhere"),
        "seed": 0,
        **changes,
    }
    return LossBenchmark(**arguments)


RESULTS = {
    8: {
        OURS: Measurement(0.002, 10.0),
        ADDONS: Measurement(0.5, 90.0),
        PYTORCH: Measurement(why_not="needs about 9 GB of memory"),
        FLOOR: Measurement(0.001, 5.0),
    }
}


@pytest.mark.slow
def test_each_implementation_is_measured():
    found = run_loss_benchmark(config_of())[16]
    assert list(found) == [OURS, ADDONS, FLOOR]
    for measured in found.values():
        assert measured.why_not == ""
        assert 0 < measured.seconds < 10
        assert measured.peak_mb > 0


def test_what_does_not_fit_into_memory_is_said_and_not_tried():
    size = 2**16
    found = run_loss_benchmark(config_of(batch_sizes=[size], implementations=[ADDONS]))
    assert found[size][ADDONS].seconds is None
    assert "GB of memory" in found[size][ADDONS].why_not


def test_memory_that_others_use_is_not_counted(monkeypatch):
    monkeypatch.setattr(losses, "available_gb", lambda: 20.0)
    found = run_loss_benchmark(config_of(batch_sizes=[1024], implementations=[ADDONS]))
    assert found[1024][ADDONS].why_not == "needs about 20 GB of memory; 20 GB are available"


def test_an_implementation_that_cannot_be_installed_can_be_left_out_by_the_flag_named(
    monkeypatch, tmp_path
):
    def refuse(directory, **settings):
        raise OSError("no space")

    monkeypatch.setattr(process.venv, "create", refuse)
    environment = tmp_path / "environment"
    with pytest.raises(UserError, match="--implementation without pytorch_metric_learning leaves"):
        run_loss_benchmark(config_of(implementations=[PYTORCH], pytorch_environment=environment))


def test_an_implementation_that_fails_is_told_in_its_row(monkeypatch):
    def fail(name, task):
        raise ProcessFailed("open [/usr/lib/x]")

    monkeypatch.setattr(losses, "run_module", fail)
    config = config_of(implementations=[OURS], rounds=2)
    found = run_loss_benchmark(config)
    assert found[16][OURS].why_not == "failed: open [/usr/lib/x]"
    assert "failed: open [/usr/lib/x]" in " ".join(table_of(found, config).split())


def test_a_batch_of_broken_items_is_refused():
    with pytest.raises(UserError, match="a batch of 18 is not made of items with 4 pictures"):
        run_loss_benchmark(config_of(batch_sizes=[16, 18]))


def test_the_summary_holds_ratios_and_none_where_there_is_nothing_to_compare():
    (found,) = summary_of(RESULTS)
    assert found["batch_size"] == 8
    assert found["speedup_vs_tfa"] == pytest.approx(250)
    assert found["speedup_vs_pytorch_metric_learning"] is None
    assert found["peak_mb"] == 10.0
    assert found["times_floor"] == pytest.approx(2)
    (alone,) = summary_of({8: {OURS: RESULTS[8][OURS]}})
    assert alone["speedup_vs_tfa"] is None
    assert alone["times_floor"] is None


def test_the_table_shows_times_ratios_and_why_something_is_missing():
    table = table_of(RESULTS, config_of(implementations=[OURS, ADDONS, PYTORCH, FLOOR]))
    cells = [line.split() for line in table.splitlines() if line.strip().startswith("8 ")]
    row = {name: rest for _, name, *rest in cells}
    assert row["apparel_embed"] == ["2.00", "10", "2.00", "1.00"]
    assert row["tfa"] == ["500.00", "90", "500.00", "250.00"]
    assert " ".join(row["pytorch_metric_learning"]) == "needs about 9 GB of memory"
    assert "averages" in table
