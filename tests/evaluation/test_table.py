from __future__ import annotations

import pytest

from apparel_embed.evaluation.roles import ordered_models
from apparel_embed.evaluation.table import (
    TEACHER_HEADER,
    human_count,
    render_comparisons,
    render_runs,
    render_tables,
    render_teachers,
    teacher_rows,
)


def row(model, scope="within", vertical="ALL", r_at_1=0.5, **more):
    return {
        "model": model, "scope": scope, "vertical": vertical, "in_all": True, "queries": 40,
        "gallery": 80,
        "r_at_1": r_at_1, "r_at_1_low": None if r_at_1 is None else r_at_1 - 0.0625,
        "r_at_1_high": None if r_at_1 is None else r_at_1 + 0.0625, "r_at_5": 0.875,
        "r_at_10": 0.9, "r_at_20": 0.95, "map_at_r": 0.375, "r_at_1_pooled": 0.4375, "items": 10,
        "chance": 0.03125, "parameters": 1_230_000, "models_to_deploy": 1, **more,
    }  # fmt: skip


def cells(text, first):
    """Returns the cells of the table row whose first cell is `first`."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (found,) = [line[1:] for line in lines if line[0] == first]
    return found


def test_the_gap_table_has_the_figures_of_each_model():
    text = render_tables(
        [
            row("unified", r_at_1=0.75),
            row("unified", scope="merged", r_at_1=0.625),
            row("specialists", r_at_1=0.8, parameters=6_150_000, models_to_deploy=5),
        ]
    )
    assert cells(text, "model")[:7] == [
        "R@1 within", "pooled", "R@5", "mAP@R", "R@1 merged", "parameters", "models",
    ]  # fmt: skip
    assert cells(text, "unified") == [
        "0.750 [0.688, 0.812]", "0.438", "0.875", "0.375", "0.625", "1.23 M", "1",
    ]  # fmt: skip
    assert cells(text, "specialists") == [
        "0.800 [0.738, 0.863]", "0.438", "0.875", "0.375", "-", "6.15 M", "5",
    ]  # fmt: skip


def test_the_table_of_verticals_has_a_column_per_model_queries_items_and_chance():
    text = render_tables(
        [
            row("unified", vertical="tops", r_at_1=0.25, queries=7),
            row("specialists", vertical="tops", r_at_1=0.3, queries=7),
            row("unified", vertical="bags", r_at_1=0.5, queries=9),
            row("unified", vertical="hats", r_at_1=None, queries=0, items=0, chance=None),
            row("unified", r_at_1=0.375, queries=16),
            row("unified", scope="merged", vertical="tops", r_at_1=0.1, queries=7),
        ]
    )
    assert cells(text, "vertical") == ["queries", "items", "chance", "specialists", "unified"]
    assert cells(text, "tops") == ["7", "10", "0.031", "0.300", "0.250"]
    assert cells(text, "bags") == ["9", "10", "0.031", "-", "0.500"]
    assert cells(text, "hats") == ["0", "0", "-", "-", "-"]
    assert cells(text, "ALL") == ["16", "10", "0.031", "-", "0.375"]
    assert text.index("| bags") < text.index("| hats") < text.index("| tops") < text.index("| ALL")


def test_verticals_with_few_items_are_marked_and_all_is_also_given_with_them():
    text = render_tables(
        [
            row("unified", vertical="tops", r_at_1=0.25, items=30),
            row("unified", vertical="hats", r_at_1=1.0, items=1, in_all=False, chance=0.4),
            row("unified", vertical="bags", r_at_1=None, queries=0, items=0, in_all=False),
            row("unified", r_at_1=0.25, items=30),
        ]
    )
    assert cells(text, "hats *") == ["40", "1", "0.400", "1.000"]
    assert "* fewer than 5 items" in text
    assert "With these verticals ALL would be: unified 0.625" in text


def test_models_with_different_queries_show_both_counts():
    text = render_tables(
        [row("unified", vertical="tops", queries=7), row("combined", vertical="tops", queries=9)]
    )
    assert cells(text, "tops")[0] == "7 / 9"


def test_models_are_in_the_standard_order_and_others_last():
    names = ["zeta", "unified", "alpha", "colour_histogram", "combined", "zeta", "specialists"]
    assert ordered_models(names) == [
        "colour_histogram", "combined", "specialists", "unified", "zeta", "alpha",
    ]  # fmt: skip
    text = render_tables([row(name) for name in dict.fromkeys(names)])
    assert cells(text, "vertical") == ["queries", "items", "chance", *ordered_models(names)]


def test_a_model_with_only_merged_figures_has_a_row():
    text = render_tables([row("unified", scope="merged", r_at_1=0.625)])
    assert cells(text, "unified") == ["-", "-", "-", "-", "0.625", "1.23 M", "1"]
    text = render_tables([row("unified", vertical="tops")])
    assert cells(text, "unified") == ["-", "-", "-", "-", "-", "1.23 M", "1"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (99_960, "100 k"),
        (999_499, "999 k"), (999_600, "1.00 M"), (1_234_567, "1.23 M"), (25_600_000, "25.6 M"),
        (1_500_000_000, "1.50 G"), (2_500_000_000_000, "2500 G"),
    ],
)  # fmt: skip
def test_counts_have_three_digits(count, text):
    assert human_count(count) == text


def test_the_text_is_plain_for_any_names_and_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    text = render_tables([row("[bold]mine[/bold]", vertical="a :smile: [red]"), row("unified")])
    assert "[bold]mine[/bold]" in text and "a :smile: [red]" in text
    assert "\x1b" not in text and text.isascii()
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.endswith("|\n")


def test_lines_fit_the_width_without_losing_figures():
    long = "grouped_specialists_of_garments_and_shoes"
    text = render_tables([row(long, r_at_1=0.75), row("unified")])
    assert max(map(len, text.splitlines())) <= 120
    for figure in (long, "0.750", "[0.688,", "0.812]", "0.375", "1.23 M"):
        assert figure in text


def test_comparisons_of_the_mean_say_whether_they_may_be_chance():
    def entry(vertical, difference, low, high):
        values = {"difference": difference, "low": low, "high": high, "is_clear": low > 0}
        return {"model": "unified", "minus": "combined", "vertical": vertical, **values}

    text = render_comparisons(
        [
            entry("ALL", -0.012, -0.031, 0.008),
            entry("bag", 0.5, 0.4, 0.6),
            entry("ALL", 0.05, 0.01, 0.09),
            entry("ALL", -0.0004, -0.0001, -0.0),
        ]
    )

    assert text.splitlines() == [
        "unified - combined: -0.012 [-0.031, +0.008], may be chance",
        "unified - combined: +0.050 [+0.010, +0.090], clear",
        # Not -0.000: zero has no negative sign.
        "unified - combined: +0.000 [+0.000, +0.000], may be chance",
    ]


def several(runs, **more):
    rows = [
        {
            "model": model, "scope": scope, "strata": 2, "left_out": ["hats"], "queries": 40,
            "r_at_1": 0.75, "r_at_1_low": 0.6875, "r_at_1_high": 0.8125, "r_at_5": 0.875,
            "r_at_10": 0.9, "r_at_20": 0.95, "map_at_r": 0.375, "r_at_1_runs": runs,
            "r_at_1_std": 0.0625,
        }
        for model, scope in (
            ("unified", "within"), ("unified", "merged"), ("specialists", "within"),
        )
    ]  # fmt: skip
    difference = {
        "model": "unified", "minus": "specialists", "vertical": "ALL", "queries": 40,
        "difference": 0.125, "low": 0.0625, "high": 0.25, "is_clear": True,
        "difference_runs": [one - 0.625 for one in runs], "difference_std": 0.0625,
    }  # fmt: skip
    names = [{"run": f"runs/s{n}", "dataset": "ab"[n > 1]} for n in range(len(runs))]
    return {"split": "test", "runs": names, "rows": rows, "comparisons": [difference], **more}


def test_figures_of_each_run_are_next_to_their_mean():
    text = render_runs(several([0.5, 0.75, 1.0]))

    assert cells(text, "model")[:6] == [
        "R@1 within", "std of runs", "single runs", "R@5", "mAP@R", "R@1 merged",
    ]  # fmt: skip
    assert cells(text, "unified")[:6] == [
        "0.750 [0.688, 0.812]", "0.062", "0.500 0.750 1.000", "0.875", "0.375", "0.750",
    ]  # fmt: skip
    assert cells(text, "specialists")[5] == "-"
    assert text.startswith("3 runs, split test\n")
    for line in (
        "  runs/s1 (dataset 1)",
        "  runs/s2 (dataset 2)",
        "Left out of the mean, with too few items in a run: hats",
        "std of runs: standard deviation of single runs, whose trainings and data differ",
        "unified - specialists: +0.125 [+0.062, +0.250], clear; single runs -0.125 +0.125 +0.375",
    ):
        assert line in text.splitlines()
    assert max(map(len, text.splitlines())) <= 120


def test_runs_of_one_dataset_differ_only_by_their_trainings():
    text = render_runs(several([0.5, 0.75]))

    assert "\nstd of runs: standard deviation of single runs, whose trainings differ\n" in text


def test_many_runs_are_shown_as_a_range():
    text = render_runs(several([0.5, 0.25, 0.75, 0.5, 0.5, 0.625]))

    assert cells(text, "unified")[2] == "0.250 .. 0.750"
    assert text.endswith("clear; single runs -0.375 .. +0.125\n")
    assert "Differences" not in render_runs(several([0.5, 0.75], comparisons=[]))


CHOICES = [
    {
        "vertical": "bags",
        "chosen": "specialist-bags",
        "queries": 120,
        "items": 40,
        "candidates": [
            {"name": "joint", "r_at_1": 0.5, "difference": 0.0, "low": -0.05},
            {"name": "specialist-bags", "r_at_1": 0.75, "difference": 0.25, "low": 0.1},
        ],
    },
    {"vertical": "hats", "chosen": "joint", "queries": 0, "items": 0, "candidates": []},
]


def test_every_vertical_has_a_row_with_its_teacher_and_the_evidence():
    assert teacher_rows(CHOICES) == [
        ("bags", "specialist-bags", "120", "40", "joint 0.500, specialist-bags 0.750"),
        ("hats", "joint", "0", "0", "no query has an answer"),
    ]
    assert all(len(row) == len(TEACHER_HEADER) for row in teacher_rows(CHOICES))


def test_the_table_of_teachers_is_plain_text():
    text = render_teachers({"choices": CHOICES})
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line
    ]
    assert tuple(cells[0]) == TEACHER_HEADER
    assert tuple(cells[2]) == teacher_rows(CHOICES)[0]
    assert text.isascii()
