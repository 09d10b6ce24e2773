import pytest

from apparel_embed.benchmarks.serving import (
    KNOWN,
    RAW,
    RAW_ONE,
    SERVED,
    SERVED_ONE,
    UNKNOWN,
    ServingBenchmark,
    figures_of,
    made_up_subjects,
)


@pytest.fixture(scope="module")
def subjects():
    return made_up_subjects(ServingBenchmark(batch_size=3, specialists=1, image_width=40))


def test_ratios_are_of_medians(subjects):
    seconds = {
        SERVED: [1, 3, 2],
        RAW: [4, 4, 9],
        SERVED_ONE: [1],
        RAW_ONE: [2],
        KNOWN: [6],
        UNKNOWN: [12],
    }
    rows, ratios = figures_of(seconds, subjects)
    assert ratios["bytes_vs_raw"] == ratios["bytes_vs_raw_one_image"] == 0.5
    assert ratios["student_vs_specialists"] == 3
    assert ratios["student_vs_specialists_verticals_unknown"] == 6
    rates = {row["what"]: row["images_per_second"] for row in rows}
    assert (rates[SERVED], rates[SERVED_ONE], rates[KNOWN]) == (1.5, 1, 0.5)
