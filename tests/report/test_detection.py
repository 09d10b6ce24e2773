"""The report's section on photographs."""

import dataclasses

import pytest
from report_runs import Run

from apparel_embed.report.detection import detection_section
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Table

ROW = {
    **{"garments": 1200, "missed": 30, "wrong_vertical": 4, "false_alarms": 7, "ap": 0.5},
    **{"ap50": 0.9, "ap50_low": 0.85, "ap50_high": 0.95, "queries": 1100},
    **{
        f"r_at_1_{way}{end}": value
        for way in ("detected", "true_boxes", "whole_photograph")
        for end, value in (("", 0.6), ("_low", 0.55), ("_high", 0.65))
    },
}
RECORD = {
    **ROW,
    **{"split": "test", "photographs": 400, "score_threshold": 0.45},
    "verticals": {"bag": ROW, "<b>hat": {**ROW, "queries": 0, "ap50_low": None}},
}


@pytest.fixture
def inputs(nasty_run: Run) -> ReportInputs:
    return nasty_run.inputs()


def test_a_run_without_a_detector_says_how_to_train_one(inputs):
    section = detection_section(inputs)
    assert section.parts == ()
    assert "--detector trains one" in section.caption


def test_boxes_and_items_are_shown_with_their_intervals(inputs):
    found = dataclasses.replace(inputs, detection=RECORD, detection_sheet=b"png")
    boxes, items, sheet = detection_section(found).parts
    assert isinstance(boxes, Table) and isinstance(items, Table) and isinstance(sheet, Figure)
    assert "1,200 garments of 400 photographs of split test" in boxes.caption
    assert "0.45" in boxes.caption
    assert boxes.rows[0] == ("ALL", "1,200", "0.900 [0.850, 0.950]", "0.500", "30", "4", "7")
    assert [row[0] for row in boxes.rows] == ["ALL", "bag", "<b>hat"]
    # Verticals without queries are left out.
    assert [row[0] for row in items.rows] == ["ALL", "bag"]
    assert items.rows[1][2:] == ("0.600 [0.550, 0.650]",) * 3
    assert boxes.rows[2][2] == "0.900"
    assert sheet.png == b"png"
