import dataclasses
import json

import pytest
from tiny_teachers import MODEL, write_model

from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.compression import CompressionConfig, compression_stage
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage

pytestmark = pytest.mark.slow


def test_every_kind_has_its_size_and_its_cost(tiny_prepared, tmp_path):
    def train(directory):
        write_model(directory / "model", seed=3)
        return {}

    student = run_stage(
        StageSpec(
            tmp_path / "student", flags={"model": dataclasses.asdict(MODEL)}, inputs={}, work=train
        )
    )
    config = CompressionConfig(tflite=("float16",), embeddings=("int8", "binary"))
    stage = compression_stage(Run(tmp_path, tiny_prepared), student, config)
    rows = json.loads((stage.directory / "compression.json").read_text())["rows"]

    assert [(row["what"], row["kind"]) for row in rows] == [
        ("model", "float32"),
        ("model", "float16"),
        ("embedding", "float32"),
        ("embedding", "int8"),
        ("embedding", "binary"),
    ]
    assert rows[1]["bytes"] == (stage.directory / "model_float16.tflite").stat().st_size
    assert [row["bytes"] for row in rows[2:]] == [32, 8, 1]
    whole = rows[0]["r_at_1"]
    for row in rows:
        assert row["queries"] == 16
        assert abs(row["difference"]["difference"] - (row["r_at_1"] - whole)) < 1e-9
    table = (stage.directory / "compression.md").read_text("utf-8")
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + len(rows)
    assert compression_stage(Run(tmp_path, tiny_prepared), student, config).skipped
