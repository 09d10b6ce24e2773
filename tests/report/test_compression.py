import dataclasses

from apparel_embed.common.files import write_json
from apparel_embed.report.compression import compression_section
from apparel_embed.store.record import Stage


def test_a_run_without_costs_says_how_to_get_them(nasty_run):
    section = compression_section(nasty_run.inputs())

    assert "tools/measure_compression.py" in section.caption
    assert not section.parts


def test_each_kind_has_its_line(nasty_run, tmp_path):
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
        nasty_run.inputs(), stages={"compression": Stage(tmp_path, "", {}, {}, 0.0)}
    )
    (table,) = compression_section(inputs).parts

    assert table.rows == (
        ("model float32", "4,000", "0.500 [0.400, 0.600]", "-"),
        ("model int8", "1,000", "0.500 [0.400, 0.600]", "-0.010 [-0.020, +0.001]"),
    )
    assert "40 queries" in table.caption
