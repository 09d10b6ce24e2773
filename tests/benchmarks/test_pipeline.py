import math

import numpy as np
import pytest

from apparel_embed.benchmarks import exact_search
from apparel_embed.benchmarks.exact_search import measure_exact_search
from apparel_embed.benchmarks.pipeline import (
    PipelineBenchmark,
    run_pipeline_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.common.errors import UserError

PARTS = {
    "input": lambda scale, seed: {"input_vs_ceiling": 0.9 + scale / 100, "seconds": 1.0 * scale},
    "search": lambda scale, seed: {"knn_vs_faiss": 1.5 if scale == 16 else None, "seed": seed},
}


def test_figures_of_every_scale_are_kept_and_those_of_the_largest_are_the_summary():
    results = run_pipeline_benchmark(PipelineBenchmark(("input", "search"), (1, 16), 7), PARTS)
    summary = summary_of(results)
    assert summary["input_vs_ceiling"] == pytest.approx(1.06)
    assert (summary["knn_vs_faiss"], summary["seed"]) == (1.5, 7)
    assert summary["growth"]["input"]["1"]["seconds"] == 1.0
    assert summary["growth"]["search"]["1"]["knn_vs_faiss"] is None
    text = table_of(results)
    assert "16x" in text and "1.06" in text and "faiss's flat index over exact search" in text


@pytest.mark.slow
def test_exact_search_is_measured_beside_faiss(monkeypatch):
    monkeypatch.setattr(exact_search, "QUERIES", 2000)
    monkeypatch.setattr(exact_search, "GALLERY", 3000)
    found = measure_exact_search(16)
    if found["knn_vs_faiss"] is not None:
        assert found["knn_vs_faiss"] > 0
        assert found["knn_alike"] > 0.99
    assert 0 < found["knn_seconds"] < math.inf
    assert found["knn_peak_gb"] is None or 0.02 < found["knn_peak_gb"] < 2
    assert set(measure_exact_search(4)) == {"knn_seconds", "knn_peak_gb"}


def test_a_measurement_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(exact_search, "_K", 0)
    monkeypatch.setattr(exact_search, "QUERIES", 32)
    monkeypatch.setattr(exact_search, "GALLERY", 32)
    with pytest.raises(UserError, match=r"exact search of 2 queries failed: .*k is 0"):
        measure_exact_search(1)


@pytest.mark.slow
def test_bulk_embedding_is_measured_beside_the_model(monkeypatch):
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
def test_training_input_is_measured_beside_decoding_and_a_constant_batch(monkeypatch):
    from apparel_embed.benchmarks import training_input
    from apparel_embed.models.embedding import ModelConfig

    tiny = {"MODEL": ModelConfig(image_size=32, embedding_dim=8), "PICTURES": 40, "_STEPS": 2}
    for name, value in {**tiny, "_ROUNDS": 1}.items():
        monkeypatch.setattr(training_input, name, value)
    found = training_input.measure_input(1)
    assert set(found) == {
        "input_vs_ceiling", "step_vs_constant_batch", "step_decoding_vs_constant_batch",
        "student_pass_vs_classification", "input_seconds", "step_seconds",
    }  # fmt: skip
    assert all(np.isfinite(value) and value > 0 for value in found.values())
