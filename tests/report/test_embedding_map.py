from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from report_runs import is_drawn, make_run

from apparel_embed.report.embedding_map import flattened, map_section, sampled

pytestmark = pytest.mark.slow


def test_a_sample_is_bounded_and_deterministic():
    chosen = sampled(5000, 2000)

    assert len(np.unique(chosen)) == 2000
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < 5000
    np.testing.assert_array_equal(chosen, sampled(5000, 2000))
    np.testing.assert_array_equal(sampled(3, 2000), [0, 1, 2])


def test_a_map_separates_clusters_and_is_deterministic():
    random = np.random.default_rng(0)
    cluster = np.repeat([0, 1], 40)
    embeddings = np.eye(16)[cluster] + 0.05 * random.normal(size=(80, 16))
    first, second = flattened(embeddings), flattened(embeddings)

    np.testing.assert_array_equal(first, second)
    distances = np.linalg.norm(first[:, None] - first[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(cluster[distances.argmin(axis=1)], cluster)


def test_specialists_and_student_are_drawn_and_the_caption_counts_images(nasty_run):
    first, second = (map_section(nasty_run.inputs()).parts[0] for _ in range(2))

    assert is_drawn(first.png)
    assert first.png == second.png
    assert "35 images of the 35 of split test" in first.caption
    assert "specialists has its own space" in first.caption


def test_only_specialists_are_drawn_without_a_student(nasty_run, tmp_path):
    both = map_section(nasty_run.inputs()).parts[0]
    alone = map_section(
        make_run(tmp_path / "run", nasty_run.dataset, student=False).inputs()
    ).parts[0]

    assert is_drawn(alone.png)
    assert len(alone.png) < len(both.png)


def test_equal_embeddings_give_an_explanation_instead_of_a_map(nasty_run):
    inputs = nasty_run.inputs()
    alike = {name: np.ones_like(values) for name, values in inputs.embeddings.items()}
    section = map_section(dataclasses.replace(inputs, embeddings=alike))

    assert section.parts == ()
    assert "at least 8 images with different embeddings" in section.caption
