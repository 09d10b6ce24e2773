import dataclasses
import json

import pytest
from report_runs import is_drawn

from apparel_embed.report import sweep
from apparel_embed.report.sweep import SWEEP_FILE, draw_curve, sweep_section
from apparel_embed.store.record import Stage

ROW = {"queries": 36, "r_at_1": 0.5, "r_at_1_low": 0.4, "r_at_1_high": 0.7, "repeats": [0.4, 0.6]}
SWEEP = {
    "split": "test",
    "seeds": [3, 5],
    "verticals": 4,
    "rows": [
        {"model": "triplet", "group_size": 1, **ROW},
        {"model": "triplet", "group_size": 4, **ROW},
        {"model": "unified", "group_size": 4, **ROW, "r_at_1": 0.6},
    ],
}


def test_a_run_without_a_curve_says_how_to_measure_one(nasty_run):
    section = sweep_section(nasty_run.inputs())

    assert section.parts == ()
    assert "tools/sweep_group_size.py" in section.caption


def test_the_caption_gives_queries_verticals_and_seeds(nasty_run, tmp_path):
    (tmp_path / SWEEP_FILE).write_text(json.dumps(SWEEP))
    flags = {
        "specialist": {"model": {"backbone": "small_cnn", "image_size": 64, "embedding_dim": 16}}
    }
    stage = Stage(tmp_path, "", flags, {}, 0.0)
    section = sweep_section(dataclasses.replace(nasty_run.inputs(), stages={"sweep": stage}))

    (image,) = section.parts
    assert is_drawn(image.png)
    assert "4 verticals, 36 queries at each size" in image.caption
    assert "Seeds: 3, 5. Models of the sweep: small_cnn, images of 64 pixels, 16" in image.caption


def test_the_curve_depends_only_on_its_values():
    other = {**SWEEP, "rows": [{**row, "r_at_1": 0.45} for row in SWEEP["rows"]]}

    assert draw_curve(SWEEP) == draw_curve(SWEEP)
    assert draw_curve(SWEEP) != draw_curve(other)


def test_the_curve_uses_the_mean_size_of_groups_instead_of_the_requested_size(monkeypatch):
    figures = []
    monkeypatch.setattr(sweep, "png_bytes", figures.append)
    # Size 3 divides 8 verticals into groups of 3, 3 and 2.
    rows = [{**SWEEP["rows"][0], "group_size": 8 / 3}, SWEEP["rows"][1]]
    draw_curve({**SWEEP, "rows": rows})

    (axes,) = figures[0].axes
    assert list(axes.get_xticks()) == [8 / 3, 4]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2.67", "4"]
    assert list(axes.lines[0].get_xdata()) == pytest.approx([8 / 3, 4], rel=0.05)


def test_a_curve_with_an_interval_end_rounded_below_its_value_is_drawn():
    rows = [{**SWEEP["rows"][0], "r_at_1": 1.0, "r_at_1_high": 1.0 - 1e-16 * 2}]
    assert rows[0]["r_at_1_high"] < 1
    assert is_drawn(draw_curve({**SWEEP, "rows": rows}))


def test_a_curve_of_one_size_and_one_kind_of_model_is_drawn():
    assert is_drawn(draw_curve({**SWEEP, "rows": SWEEP["rows"][:1]}))
