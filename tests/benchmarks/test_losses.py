import pytest
from addons_losses import needs_addons

from apparel_embed.benchmarks import losses
from apparel_embed.benchmarks.harness import Measured
from apparel_embed.benchmarks.losses import ADDONS, FLOOR, OURS, LossBenchmark, measure_losses
from apparel_embed.common.errors import UserError
from apparel_embed.losses.addons import has_addons


@pytest.mark.slow
def test_each_implementation_is_measured():
    rows = measure_losses(LossBenchmark([16], dim=8, rounds=1, seconds=0.0))
    assert [row["implementation"] for row in rows] == [OURS, ADDONS, FLOOR]
    for row in rows:
        if row["implementation"] == ADDONS and not has_addons():
            assert row["why_not"].startswith("TensorFlow Addons is not installed")
            continue
        assert row["why_not"] == ""
        assert 0 < row["milliseconds"] < 10_000
        assert row["peak_mb"] > 0


@needs_addons
def test_an_implementation_that_does_not_fit_into_memory_is_not_started():
    (row,) = measure_losses(LossBenchmark([2**16], implementations=[ADDONS]))
    assert row["milliseconds"] is None
    assert "GB of memory" in row["why_not"]


@needs_addons
def test_memory_used_by_other_processes_is_not_available(monkeypatch):
    monkeypatch.setattr(losses, "available_gb", lambda: 20.0)
    (row,) = measure_losses(LossBenchmark([1024], implementations=[ADDONS]))
    assert row["why_not"] == "needs about 20 GB of memory; 20 GB are available"


def test_a_batch_with_incomplete_items_is_refused():
    with pytest.raises(UserError, match="--batch_sizes: 18 is not a multiple of the 4 images"):
        measure_losses(LossBenchmark([16, 18]))


@needs_addons
def test_times_are_compared_with_the_lower_bound_and_with_this_package(monkeypatch):
    found = {OURS: Measured(0.002, 0.0, 10.0), ADDONS: Measured(0.5), FLOOR: Measured(0.001)}
    monkeypatch.setattr(
        losses, "measure_modules", lambda name, tasks, rounds: {one: found[one] for one in tasks}
    )
    rows = measure_losses(LossBenchmark([8]))
    assert [row["times_floor"] for row in rows] == pytest.approx([2, 500, 1])
    assert [row["times_ours"] for row in rows] == pytest.approx([1, 250, 0.5])
    assert (rows[0]["milliseconds"], rows[0]["peak_mb"]) == (pytest.approx(2), 10.0)
    (alone,) = measure_losses(LossBenchmark([8], implementations=[OURS]))
    assert alone["times_floor"] is None
