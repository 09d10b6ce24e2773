"""The report's section on items that are not in the gallery."""

import dataclasses

from apparel_embed.report.absent import absent_section

LEVEL = {
    **{"promised": 0.05, "threshold": 0.25, "accepted_and_right": 0.6},
    **{"false_accepts": 0.04, "false_accepts_low": 0.01, "false_accepts_high": 0.08},
    **{"measured_parts": 1, "measured_queries": 120},
}
NONE = {**dict.fromkeys(LEVEL), "promised": 0.01}
FACTS = {"gallery": 1200, "val_items": 50, "queries": 120, "parts": 1}
RECORD = {
    "split": "test",
    "rows": [{"scope": "within", "vertical": "<b>hat", **FACTS, "levels": [NONE, LEVEL]}],
}


def test_thresholds_are_shown_with_the_shares_they_accept(nasty_run):
    inputs = nasty_run.inputs()
    assert absent_section(inputs).parts == ()
    (table,) = absent_section(dataclasses.replace(inputs, absent=RECORD)).parts
    start = ("<b>hat", "within", "1,200", "50", "120")
    assert table.rows == ((*start, "5%", "0.250", "0.040 [0.010, 0.080]", "0.600"),)
    assert "split test" in table.caption
    (row,) = RECORD["rows"]
    mean = {**row, "vertical": "ALL", "queries": 900, "parts": 8}
    in_all = dataclasses.replace(inputs, absent={**RECORD, "rows": [mean]})
    assert absent_section(in_all).parts[0].rows[0][0] == "ALL (in 1 of 8 verticals)"
    assert absent_section(in_all).parts[0].rows[0][4] == "120"
    few = {**RECORD, "rows": [{**row, "levels": [NONE]}]}
    section = absent_section(dataclasses.replace(inputs, absent=few))
    assert section.parts == () and "with fewer, a search gets no verdict" in section.caption
