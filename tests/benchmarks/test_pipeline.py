import math

import numpy as np
import pytest

from apparel_embed.benchmarks import exact_search, pipeline
from apparel_embed.benchmarks.exact_search import measure_exact_search
from apparel_embed.benchmarks.pipeline import PipelineBenchmark, measure_pipeline
from apparel_embed.common.errors import UserError


def measure_one(scale, seed):
    return {"input_vs_ceiling": 0.9 + scale / 100, "seconds": 1.0 * scale}


def measure_other(scale, seed):
    return {"late": 1.5, "seed": seed} if scale == 16 else {"seed": seed}


def test_each_figure_has_a_row_with_its_value_at_every_scale(monkeypatch):
    parts = {"input": f"{__name__}:measure_one", "search": f"{__name__}:measure_other"}
    monkeypatch.setattr(pipeline, "PARTS", parts)
    rows = measure_pipeline(PipelineBenchmark(("input", "search"), (16, 1), 7))
    found = {(row["part"], row["figure"]): (row["1x"], row["16x"]) for row in rows}
    assert found == {
        ("input", "input_vs_ceiling"): pytest.approx((0.91, 1.06)),
        ("input", "seconds"): (1.0, 16.0),
        ("search", "seed"): (7, 7),
        ("search", "late"): (None, 1.5),
    }
    assert rows[0]["what"] == "input alone over decoding alone, throughput"


@pytest.mark.slow
def test_exact_search_is_measured(monkeypatch):
    monkeypatch.setattr(exact_search, "QUERIES", 2000)
    monkeypatch.setattr(exact_search, "GALLERY", 3000)
    found = measure_exact_search(16)
    assert 0 < found["knn_seconds"] < math.inf
    assert found["knn_peak_gb"] is None or 0.02 < found["knn_peak_gb"] < 2


def test_the_error_of_a_failed_measurement_names_the_reason(monkeypatch):
    monkeypatch.setattr(exact_search, "_K", 0)
    monkeypatch.setattr(exact_search, "QUERIES", 32)
    monkeypatch.setattr(exact_search, "GALLERY", 32)
    with pytest.raises(UserError, match=r"exact search of 2 queries failed: .*k is 0"):
        measure_exact_search(1)


@pytest.mark.slow
def test_bulk_embedding_is_measured_relative_to_the_model(monkeypatch):
    from apparel_embed.benchmarks import embedding
    from apparel_embed.models.embedding import ModelConfig

    monkeypatch.setattr(embedding, "MODEL", ModelConfig(image_size=32, embedding_dim=8))
    for name, value in (("_ROUNDS", 1), ("_WIDTH", 60), ("_HEIGHT", 80), ("_DIFFERENT", 2)):
        monkeypatch.setattr(embedding, name, value)
    found = embedding.measure_embedding(1)
    assert set(found) == {
        "embed_vs_model", "embed_manifest_vs_model",
        "embed_cpu_vs_model", "embed_manifest_cpu_vs_model",
        "model_seconds", "embed_seconds", "embed_manifest_seconds",
    }  # fmt: skip
    assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert found["embed_vs_model"] == found["model_seconds"] / found["embed_seconds"]


@pytest.mark.slow
def test_training_input_is_measured_relative_to_decoding_and_a_constant_batch(monkeypatch):
    from apparel_embed.benchmarks import training_input
    from apparel_embed.models.embedding import ModelConfig

    tiny = {"MODEL": ModelConfig(image_size=32, embedding_dim=8), "IMAGES": 40, "_STEPS": 2}
    for name, value in {**tiny, "_ROUNDS": 1}.items():
        monkeypatch.setattr(training_input, name, value)
    found = training_input.measure_input(1)
    assert set(found) == {
        "input_vs_ceiling", "step_vs_constant_batch", "step_decoding_vs_constant_batch",
        "student_pass_vs_classification", "input_seconds", "step_seconds",
    }  # fmt: skip
    assert all(np.isfinite(value) and value > 0 for value in found.values())
