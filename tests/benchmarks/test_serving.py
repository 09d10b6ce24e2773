import pytest

from apparel_embed.benchmarks.serving import (
    KNOWN,
    RAW,
    RAW_ONE,
    SERVED,
    SERVED_ONE,
    UNKNOWN,
    ServingBenchmark,
    made_up_subjects,
    run_serving_benchmark,
    summary_of,
    table_of,
)

CONFIG = ServingBenchmark(batch_size=3, rounds=2, specialists=1, picture_width=40)


@pytest.fixture(scope="module")
def subjects():
    return made_up_subjects(CONFIG)


@pytest.mark.slow
def test_everything_is_measured_in_every_round_and_told(subjects):
    seconds = run_serving_benchmark(subjects, CONFIG)
    summary = summary_of(seconds, subjects)

    assert {len(values) for values in seconds.values()} == {2}
    assert all(value > 0 for value in summary.values())
    assert summary["specialists"] == 1
    assert summary["specialists_parameters"] == summary["student_parameters"]
    table = table_of(seconds, subjects)
    assert all(name in table for name in seconds)


def test_ratios_are_of_medians(subjects):
    seconds = {
        SERVED: [1, 3, 2],
        RAW: [4, 4, 9],
        SERVED_ONE: [1],
        RAW_ONE: [2],
        KNOWN: [6],
        UNKNOWN: [12],
    }
    summary = summary_of(seconds, subjects)

    assert summary["bytes_vs_raw"] == 0.5
    assert summary["bytes_vs_raw_one_picture"] == 0.5
    assert summary["student_images_per_second"] == 1.5
    assert summary["specialists_images_per_second"] == 0.5
    assert summary["specialists_images_per_second_verticals_unknown"] == 0.25
