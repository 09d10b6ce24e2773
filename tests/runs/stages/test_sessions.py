"""Trials of a search and repeats of a sweep in TensorBoard's HParams tab."""

import pytest
from tensorboard_plugins import hparams_table

from apparel_embed.models.embedding import ModelConfig
from apparel_embed.report.hparams import write_sessions
from apparel_embed.runs.stages.grouping import trial_sessions
from apparel_embed.runs.stages.sweep import sweep_sessions
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

MODEL = ModelConfig()
TRIPLET = SpecialistConfig(MODEL, OptimizationConfig(steps=8, seed=3))
STUDENT = StudentConfig(MODEL, OptimizationConfig(steps=9))


def test_trials_are_rows_with_their_settings_and_r_at_1_of_their_verticals(tmp_path):
    record = {
        "trials": [
            {
                "verticals": ["bag"],
                "stage": "specialist-bag",
                "steps": 8,
                "r_at_1": {"bag": 0.5, "dress": 0.25},
            },
            {
                "verticals": ["bag", "dress", "hat"],
                "stage": "specialist-bag+dress+hat",
                "steps": 24,
                # No query of a hat has a match.
                "r_at_1": {"bag": 0.5, "dress": 0.75},
            },
        ]
    }
    for _ in range(2):
        # Writing again, as after an interruption, changes nothing.
        write_sessions(tmp_path / "grouping-greedy/tensorboard", trial_sessions(record, TRIPLET))

    lines = hparams_table(tmp_path)
    assert sorted(lines) == [
        "grouping-greedy/tensorboard/specialist-bag",
        "grouping-greedy/tensorboard/specialist-bag+dress+hat",
    ]
    hparams, metrics = lines["grouping-greedy/tensorboard/specialist-bag+dress+hat"]
    assert metrics == {"r_at_1": 0.625, "r_at_1/bag": 0.5, "r_at_1/dress": 0.75}
    assert hparams == {
        "kind": "grouping",
        "verticals": "bag+dress+hat",
        "group_size": 3,
        "steps": 24,
        "loss": "semi_hard",
        "margin": pytest.approx(0.3),
        "learning_rate": pytest.approx(TRIPLET.optimization.learning_rate),
        "seed": 3,
        "backbone": "small_cnn",
        "image_size": 64,
        "embedding_dim": 64,
    }
    assert lines["grouping-greedy/tensorboard/specialist-bag"][1] == {
        "r_at_1": 0.5,
        "r_at_1/bag": 0.5,
    }


def test_repeats_of_a_sweep_are_rows_with_their_seeds_and_groups(tmp_path):
    rows = [
        {"model": "triplet", "size": 2, "group_size": 1.5, "repeats": [0.25, 0.5]},
        {"model": "unified", "size": 2, "group_size": 1.5, "repeats": [0.75, 1.0]},
    ]
    repeats = [(2, 0, (("bag", "dress"), ("hat",))), (2, 1, (("bag",), ("dress", "hat")))]
    trainings = {"triplet": TRIPLET, "unified": STUDENT}
    write_sessions(tmp_path, sweep_sessions({"rows": rows}, repeats, trainings))

    found = {
        (hparams["model"], hparams["seed"]): (hparams["verticals"], hparams["loss"], metrics)
        for hparams, metrics in hparams_table(tmp_path).values()
    }
    assert found == {
        ("triplet", 0): ("bag+dress,hat", "semi_hard", {"r_at_1": 0.25}),
        ("triplet", 1): ("bag,dress+hat", "semi_hard", {"r_at_1": 0.5}),
        ("unified", 0): ("bag+dress,hat", "mse", {"r_at_1": 0.75}),
        ("unified", 1): ("bag,dress+hat", "mse", {"r_at_1": 1.0}),
    }
