import os

import numpy as np
import pytest

from apparel_embed.benchmarks import harness
from apparel_embed.benchmarks.harness import (
    Measured,
    ProcessFailed,
    in_turns,
    measure,
    measure_modules,
    measure_warm,
    medians,
    memory_mb,
    ratio,
    run_module,
    table,
)


def test_the_peak_of_warm_calls_excludes_the_memory_before_them():
    before = np.ones(30_000_000, np.uint8)  # Not counted.
    found = measure_warm(lambda: np.ones(80_000_000, np.uint8).sum(), seconds=0.0)
    if found["peak_mb"] is None:
        pytest.skip("no /proc here")
    assert 70 < found["peak_mb"] < 110
    assert before.all()


def test_a_warm_call_is_repeated_at_least_three_times():
    calls = []
    found = measure_warm(lambda: calls.append(True), seconds=0.0)
    assert len(calls) == 2 + 3
    assert 0 <= found["seconds"] < 1


def test_a_single_measurement_calls_once_and_gives_the_peak_of_the_process():
    calls = []
    before = np.ones(30_000_000, np.uint8)
    found = measure(lambda: calls.append(np.ones(80_000_000, np.uint8).sum()))
    assert len(calls) == 1
    assert found["seconds"] > 0 and found["cpu_seconds"] >= 0
    if found["peak_mb"] is None:
        pytest.skip("no /proc here")
    assert found["peak_mb"] > 110 - 5
    assert before.all()


def test_the_memory_of_another_process_can_be_read():
    found = memory_mb("VmRSS", os.getpid())
    if found is None:
        pytest.skip("no /proc here")
    assert 10 < found < 100_000
    assert memory_mb("VmRSS", 2**30) is None


def test_sides_take_turns_after_one_call_each():
    calls = []
    times = in_turns({name: lambda n=name: calls.append(n) for name in "ab"}, 2, "test")
    assert "".join(calls) == "ab" + "abab"
    assert set(medians(times)) == {"a", "b"} and len(times["a"]) == 2


def test_tasks_are_measured_in_turns_and_failures_are_reported(monkeypatch):
    started = []

    def run(name, task):
        started.append((name, task["number"]))
        if task["number"] == 2:
            raise ProcessFailed("MemoryError")
        return {"seconds": float(len(started)), "cpu_seconds": 1.0, "peak_mb": None}

    monkeypatch.setattr(harness, "run_module", run)
    found = measure_modules("data", {"one": {"number": 1}, "two": {"number": 2}}, 3)
    # A failed task is not started again.
    assert started == [("data", number) for number in (1, 2, 1, 1)]
    assert found == {"one": Measured(3.0, 1.0), "two": Measured(why_not="failed: MemoryError")}


def test_the_error_of_a_failed_process_is_its_last_line():
    with pytest.raises(ProcessFailed, match="KeyError: 'seed'"):
        run_module("exact_search", {})
    with pytest.raises(ProcessFailed, match="No module named"):
        run_module("nothing", {})


def test_there_is_no_ratio_if_either_number_is_missing():
    assert ratio(6.0, 4.0) == 1.5
    assert ratio(None, 4.0) is ratio(6.0, None) is ratio(6.0, 0.0) is None


def test_a_table_shows_every_column_with_missing_values_empty():
    rows = [
        {"name": "a [b]", "peak_mb": 1234.5, "times": None},
        {"name": "c", "peak_mb": 1.23456, "times": 1000},
    ]
    lines = table("Title", rows, {"one_ratio": 0.5}).splitlines()
    cells = [line.split() for line in lines if line.strip()]
    assert cells[0] == ["Title"]
    assert cells[1] == ["name", "peak", "mb", "times"]
    assert cells[3:] == [["a", "[b]", "1,234"], ["c", "1.23", "1,000"], ["one", "ratio:", "0.5"]]
