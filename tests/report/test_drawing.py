from __future__ import annotations

import pytest
from matplotlib.text import Text
from report_runs import is_drawn

from apparel_embed.evaluation.roles import MODEL_ORDER
from apparel_embed.report.drawing import (
    interval_arms,
    literal,
    model_style,
    new_figure,
    png_bytes,
    vertical_style,
)


@pytest.mark.parametrize("name", ["$x$", "100 $", r"a $\frac$ b", "<b>&", "two\nlines", "{}%s"])
def test_a_name_is_drawn_literally_and_never_as_a_formula(name):
    text = literal(name)
    shown, is_formula = Text()._preprocess_math(text)

    assert not is_formula
    assert shown == " ".join(name.split())
    figure = new_figure(3, 1)
    figure.text(0.1, 0.5, text)
    assert is_drawn(png_bytes(figure))


def test_a_long_name_is_truncated():
    assert literal("x" * 100) == "x" * 27 + "…"
    assert literal("x" * 28) == "x" * 28


def test_every_model_has_its_own_colour_and_marker():
    styles = [model_style(model) for model in (*MODEL_ORDER, "another")]

    assert len({colour for colour, _ in styles}) == len({mark for _, mark in styles}) == 7


def test_error_bars_are_never_negative():
    rows = [
        {"r_at_1": 0.5, "r_at_1_low": 0.25, "r_at_1_high": 1.0},
        {"r_at_1": 0.5, "r_at_1_low": 0.5 + 1e-16 * 2, "r_at_1_high": 0.5 - 1e-12},
    ]
    assert interval_arms(rows) == ([0.25, 0.0], [0.5, 0.0])


def test_fifty_verticals_have_distinct_styles():
    assert len({vertical_style(number) for number in range(50)}) == 50
