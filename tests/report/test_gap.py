from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from report_runs import SILENT, is_drawn, make_run

from apparel_embed.evaluation.routing import evaluate_routing
from apparel_embed.report import gap
from apparel_embed.report.gap import gap_section

pytestmark = pytest.mark.slow


def tables(section):
    return [part for part in section.parts if part.kind == "table"]


def with_interval(row):
    if row["r_at_1"] is None:
        return "-"
    return f"{row['r_at_1']:.3f} [{row['r_at_1_low']:.3f}, {row['r_at_1_high']:.3f}]"


def test_every_number_in_the_tables_matches_the_summary(nasty_run):
    summary = json.loads((nasty_run.evaluation.directory / "summary.json").read_text())
    rows = {(row["model"], row["scope"], row["vertical"]): row for row in summary["rows"]}
    means, within, merged, _ = tables(gap_section(nasty_run.inputs()))

    assert [line[0] for line in means.rows] == [
        "colour_histogram", "frozen_backbone", "combined", "specialists", "unified",
    ]  # fmt: skip
    for model, r_at_1, r_at_5, r_at_10, r_at_20, map_at_r, r_at_1_merged in means.rows:
        row = rows[model, "within", "ALL"]
        assert r_at_1 == with_interval(row)
        names = ("r_at_5", "r_at_10", "r_at_20", "map_at_r")
        assert [r_at_5, r_at_10, r_at_20, map_at_r] == [f"{row[name]:.3f}" for name in names]
        other = rows.get((model, "merged", "ALL"))
        assert r_at_1_merged == ("-" if model == "specialists" else with_interval(other))
    for scope, table in (("within", within), ("merged", merged)):
        models = table.header[5:]
        assert ("specialists" in models) == (scope == "within")
        verticals = [*nasty_run.dataset.verticals, "ALL"]
        for vertical, line in zip(verticals, table.rows):
            name, queries, items, gallery, chance, *cells = line
            expected = [rows[model, scope, vertical] for model in models]
            first = expected[0]
            assert name == (vertical if first["in_all"] else f"{vertical} *")
            assert cells == [with_interval(row) for row in expected]
            counts = [first[one] for one in ("queries", "items", "gallery")]
            assert [int(queries), int(items), int(gallery)] == counts
            assert chance == ("-" if first["chance"] is None else f"{first['chance']:.3f}")


def test_a_vertical_without_an_answered_query_has_no_numbers(nasty_run):
    _, within, _, _ = tables(gap_section(nasty_run.inputs()))
    (line,) = [line for line in within.rows if line[0] == f"{SILENT} *"]

    assert line[1:] == ("0", "0", "2", "-", "-", "-", "-", "-", "-")


def test_every_paired_difference_of_the_summary_is_in_the_table(nasty_run):
    summary = json.loads((nasty_run.evaluation.directory / "summary.json").read_text())
    *_, differences = tables(gap_section(nasty_run.inputs()))

    # Each group is one vertical, so grouped_specialists equals specialists.
    once = [
        one
        for one in summary["comparisons"]
        if "grouped_specialists" not in (one["model"], one["minus"])
    ]
    assert len(differences.rows) == len(once) == 3 * 4 < len(summary["comparisons"])
    for line, entry in zip(differences.rows, once):
        assert line[:3] == (
            f"{entry['model']} - {entry['minus']}", entry["vertical"], str(entry["queries"]),
        )  # fmt: skip
        numbers = f"{entry['difference']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]"
        assert line[3] == numbers
        assert line[4] == ("clear" if entry["is_clear"] else "may be chance")


def test_the_captions_give_the_numbers_of_queries_and_gallery_images(nasty_run):
    section = gap_section(nasty_run.inputs())
    # 7 items of 3 images and 3 of 4 are all queries; the merged gallery has 2 more hats.
    for part in section.parts[:3]:
        assert "33 queries and 33 gallery images" in part.caption
    assert "33 queries and 35 gallery images" in section.parts[3].caption
    assert "33 queries" in section.parts[4].caption


def test_the_figure_is_drawn_and_deterministic(nasty_run):
    first, second = (gap_section(nasty_run.inputs()).parts[1].png for _ in range(2))

    assert is_drawn(first)
    assert first == second


def test_only_the_verticals_with_the_most_queries_are_drawn(nasty_run, monkeypatch):
    inputs = nasty_run.inputs()
    # Matplotlib refuses a figure of more than 65,536 pixels, which 700 rows would exceed.
    row = {"in_all": True, "items": 9, "gallery": 9, "chance": 0.1, "map_at_r": 0.5}
    row |= {"r_at_1": 0.5, "r_at_1_low": 0.4, "r_at_1_high": 0.6, "r_at_5": 0.5}
    many = [
        {**row, "model": model, "scope": "within", "vertical": f"v{number:03d}", "queries": number}
        for model in inputs.models
        for number in range(800)
    ]
    figures = []
    monkeypatch.setattr(gap, "png_bytes", lambda figure: figures.append(figure) or b"")
    summary = {**inputs.summary, "rows": [*inputs.summary["rows"], *many]}
    image = gap_section(dataclasses.replace(inputs, summary=summary)).parts[1]

    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == ["ALL", *(f"v{number}" for number in range(700, 800))]
    assert max(figures[0].get_size_inches() * figures[0].dpi) < 2**16
    assert image.caption.endswith(
        "Only the 100 verticals with the most queries are drawn; the other 704 are in the tables."
    )
    assert "are drawn" not in gap_section(inputs).parts[1].caption


def test_groups_of_several_verticals_have_their_own_row(nasty_run, tmp_path):
    names = list(nasty_run.dataset.verticals)
    run = make_run(tmp_path / "run", nasty_run.dataset, groups=[names[:2], names[2:]])
    means, within, *_, differences = tables(gap_section(run.inputs()))

    assert [line[0] for line in means.rows][3:] == ["grouped_specialists", "unified"]
    assert "grouped_specialists" in within.header
    assert "unified - grouped_specialists" in {line[0] for line in differences.rows}


def test_a_run_without_a_student_has_a_gap_section(nasty_run, tmp_path):
    run = make_run(tmp_path / "run", nasty_run.dataset, student=False)
    section = gap_section(run.inputs())

    *_, differences = tables(section)
    assert {line[0] for line in differences.rows} == {"specialists - combined"}
    assert is_drawn(section.parts[1].png)


def test_the_table_of_differences_needs_a_pair_of_models(nasty_run):
    inputs = nasty_run.inputs()
    alone = dataclasses.replace(inputs, summary={**inputs.summary, "comparisons": []})

    assert len(tables(gap_section(alone))) == 3


def test_the_effect_of_routing_has_its_own_table(nasty_run):
    inputs = nasty_run.inputs()
    predicted = inputs.images.verticals.astype(object).copy()
    predicted[::3] = "_bags"
    rows, routing = evaluate_routing(
        "unified",
        inputs.embeddings["unified"],
        predicted,
        np.linspace(0, 1, len(predicted)),
        inputs.images,
        routing_confidence=0.5,
        parameters=9,
    )
    summary = {
        **inputs.summary,
        "rows": [*inputs.summary["rows"], *rows],
        "routing": [routing],
    }
    *_, table = tables(gap_section(dataclasses.replace(inputs, summary=summary)))
    of_student = [row for row in summary["rows"] if row["model"] == "unified"]
    found = {(row["scope"], row["vertical"]): row for row in of_student}

    assert [line[0] for line in table.rows] == [
        *(name for name in nasty_run.dataset.verticals if name != SILENT),
        "ALL",
    ]
    for vertical, queries, accuracy, *r_at_1 in table.rows:
        scopes = ("served", "merged", "routed", "within")
        assert r_at_1 == [with_interval(found[scope, vertical]) for scope in scopes]
        assert int(queries) == found["routed", vertical]["queries"]
        assert 0 <= float(accuracy.split()[0]) <= 1
    cost = routing["r_at_1_difference"]
    assert cost["difference"] < 0
    signed = f"{cost['difference']:+.3f} [{cost['low']:+.3f}, {cost['high']:+.3f}]"
    assert f"routed - within: {signed}, paired over" in table.caption
    assert f"{routing['routed']} of {routing['queries']} queries in the predicted" in table.caption
    assert len(tables(gap_section(inputs))) == 4
