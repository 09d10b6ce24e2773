from __future__ import annotations

import dataclasses
import re

import pytest
from report_runs import make_run
from rich.filesize import decimal

from apparel_embed.common.files import write_json
from apparel_embed.report.cost import compression_section, cost_section
from apparel_embed.store.record import Stage

pytestmark = pytest.mark.slow


def test_sizes_and_counts_match_the_run(nasty_run, tmp_path):
    saved_model = tmp_path / "1"
    (saved_model / "variables").mkdir(parents=True)
    (saved_model / "saved_model.pb").write_bytes(bytes(1500))
    (saved_model / "variables/data").write_bytes(bytes(500))
    (table,) = cost_section(nasty_run.inputs(saved_models={"unified": saved_model})).parts
    rows = {line[0]: line[1:] for line in table.rows}
    model = nasty_run.trainings[0].stage.directory / "model"
    size = sum(path.stat().st_size for path in model.iterdir())

    assert table.header == (
        "model", "parameters", "models to deploy", "model files", "SavedModel",
    )  # fmt: skip
    assert rows["colour_histogram"] == ("0", "0", "-", "-")
    assert rows["frozen_backbone"] == ("1.00 k", "1", "-", "-")
    assert rows["specialists"] == ("4.00 k", "4", decimal(4 * size), "-")
    assert rows["unified"] == ("1.00 k", "1", decimal(size), "2.0 kB")


def test_speed_is_measured_on_request_and_labelled_with_the_machine(nasty_run):
    (table,) = cost_section(nasty_run.inputs(measure_speed=True)).parts
    rows = {line[0]: line[-1] for line in table.rows}

    assert table.header[-1] == "images / s on this machine"
    assert rows["colour_histogram"] == rows["frozen_backbone"] == "-"
    for model in ("combined", "specialists", "unified"):
        assert re.fullmatch(r"[\d,]+", rows[model]) and rows[model] != "0"
    assert "measured on this machine" in table.caption
    assert "a batch of 35 decoded images" in table.caption


def test_a_run_without_a_student_has_costs_of_the_other_models(nasty_run, tmp_path):
    run = make_run(tmp_path / "run", nasty_run.dataset, student=False)
    (table,) = cost_section(run.inputs()).parts

    assert [line[0] for line in table.rows][-2:] == ["combined", "specialists"]


def test_a_run_without_compression_says_how_to_measure_it(nasty_run):
    section = compression_section(nasty_run.inputs())

    assert "tools/measure_compression.py" in section.caption
    assert not section.parts


def test_each_kind_has_a_row(nasty_run, tmp_path):
    difference = {"difference": -0.0104, "low": -0.02, "high": 0.001}
    common = {
        "queries": 40,
        "r_at_1": 0.5,
        "r_at_1_low": 0.4,
        "r_at_1_high": 0.6,
        "difference": difference,
    }
    rows = [
        {"what": "model", "kind": "float32", "bytes": 4000, **common},
        {"what": "model", "kind": "int8", "bytes": 1000, **common},
    ]
    write_json(tmp_path / "compression.json", {"split": "test", "rows": rows})
    inputs = dataclasses.replace(
        nasty_run.inputs(),
        stages={"compression": Stage(tmp_path, "", {"model": "combined"}, {}, 0.0)},
    )
    (table,) = compression_section(inputs).parts
    assert table.caption.startswith("Model of stage combined. R@1 within the vertical on split ")

    assert table.rows == (
        ("model float32", "4,000", "0.500 [0.400, 0.600]", "-"),
        ("model int8", "1,000", "0.500 [0.400, 0.600]", "-0.010 [-0.020, +0.001]"),
    )
    assert "40 queries" in table.caption
