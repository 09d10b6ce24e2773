import os

import numpy as np
import pytest

from apparel_embed.benchmarks.measure import measure, measure_once, resident_mb


def test_the_peak_is_that_of_the_call_above_what_was_there_before():
    before = np.ones(30_000_000, np.uint8)  # Not counted.
    found = measure(lambda: np.ones(80_000_000, np.uint8).sum(), seconds=0.0)
    if found["peak_mb"] is None:
        pytest.skip("no /proc here")
    assert 70 < found["peak_mb"] < 110
    assert before.all()


def test_a_call_is_repeated_three_times_at_least_once_it_is_warm():
    calls = []
    found = measure(lambda: calls.append(True), seconds=0.0)
    assert len(calls) == 2 + 3
    assert 0 <= found["seconds"] < 1


def test_measured_once_a_call_is_made_once_and_the_peak_is_that_of_the_process():
    calls = []
    before = np.ones(30_000_000, np.uint8)
    found = measure_once(lambda: calls.append(np.ones(80_000_000, np.uint8).sum()))
    assert len(calls) == 1
    assert found["seconds"] > 0 and found["cpu_seconds"] > 0
    if found["peak_mb"] is None:
        pytest.skip("no /proc here")
    assert found["peak_mb"] > 110 - 5
    assert before.all()


def test_the_memory_of_another_process_is_read_too():
    found = resident_mb(os.getpid())
    if found is None:
        pytest.skip("no /proc here")
    assert 10 < found < 100_000
    assert resident_mb(2**30) is None
