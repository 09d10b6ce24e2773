"""The weights that a training keeps, and when it ends."""

import numpy as np
import pytest
from tiny_loop import Values, assert_kept, checkpoints_in, make_loop

from apparel_embed.models.embedding import (
    load_embedding_model,
)

pytestmark = pytest.mark.slow


def test_the_best_weights_are_kept_and_the_later_ones_of_equals(tmp_path):
    values = iter([0.4, 0.7, 0.7, 0.2])
    snapshots = {}

    def validate(embedder):
        snapshots[len(snapshots)] = loop.model.get_weights()
        return next(values)

    loop = make_loop(tmp_path, steps=8, validate=validate)
    result = loop.run()

    assert result["kept_step"] == 6
    assert checkpoints_in(tmp_path) == ["step-00000006.npz", "step-00000008.npz"]
    assert result["validation_r_at_1"] == 0.7
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), snapshots[2]):
        np.testing.assert_array_equal(ours, expected)


def test_without_validation_the_last_weights_are_kept(tmp_path):
    loop = make_loop(tmp_path, steps=5)
    result = loop.run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (5, None)
    assert result["trained_steps"] == 5
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), loop.model.get_weights()):
        np.testing.assert_array_equal(ours, expected)


def test_by_default_a_training_validates_ten_times(tmp_path):
    validate = Values(0.5)
    make_loop(tmp_path, steps=20, validate=validate, validate_every=0).run()
    assert validate.calls == 10


def test_a_training_that_stops_improving_ends_before_its_last_step(tmp_path):
    validate = Values(0.2, 0.6, 0.5, 0.5, 0.5, 0.9)
    loop = make_loop(tmp_path, steps=20, validate=validate, patience=2)
    result = loop.run()

    # Step 4 is the best; the validations of steps 6 and 8 are not better.
    assert (result["kept_step"], result["trained_steps"]) == (4, 8)
    assert (result["validation_r_at_1"], validate.calls) == (0.6, 4)
    assert_kept(tmp_path, 4)


@pytest.mark.parametrize("patience", [0, 3])
def test_a_training_that_improves_within_its_patience_runs_to_the_end(tmp_path, patience):
    validate = Values(0.2, 0.6, 0.5, 0.5, 0.7, 0.1)
    result = make_loop(tmp_path, steps=12, validate=validate, patience=patience).run()
    assert (result["kept_step"], result["trained_steps"], validate.calls) == (10, 12, 6)


def test_a_tie_keeps_the_later_weights_but_is_not_an_improvement(tmp_path):
    result = make_loop(tmp_path, steps=8, validate=Values(0.5), patience=1).run()
    # Validated at step 2, the first with the highest value, and at step 4.
    assert (result["kept_step"], result["trained_steps"]) == (4, 4)


def test_later_weights_within_an_error_of_the_best_are_kept(tmp_path):
    validate = Values(0.7, 0.75, 0.72, 0.6)

    def error(metric):
        return 0.04

    loop = make_loop(tmp_path, steps=6, validate=validate, keep_start=True, error=error)
    result = loop.run()
    # 0.72 is within 0.04 of 0.75, and 0.6 is not.
    assert (result["kept_step"], result["validation_r_at_1"]) == (4, 0.72)


@pytest.mark.parametrize(
    ("found", "preferences", "expected"),
    [
        ((0.7, 0.75, 0.72, 0.74, 0.6), (0.9, 0.95, 0.97, 0.96, 0.99), (4, 0.72)),
        # Much better ones are kept whatever is preferred.
        ((0.5, 0.7, 0.69), (0.99, 0.9, 0.8), (2, 0.7)),
    ],
)
def test_the_preferred_of_equally_good_weights_are_kept(tmp_path, found, preferences, expected):
    result = make_loop(
        tmp_path,
        steps=2 * (len(found) - 1),
        validate=Values(*found),
        keep_start=True,
        error=lambda metric: 0.04,
        prefer=Values(*preferences),
    ).run()
    assert (result["kept_step"], result["validation_r_at_1"]) == expected


def test_without_validation_patience_has_no_effect(tmp_path):
    assert make_loop(tmp_path, steps=6, patience=1).run()["trained_steps"] == 6


def test_the_initial_weights_are_kept_if_no_later_ones_are_as_good(tmp_path):
    loop = make_loop(tmp_path, steps=4, validate=Values(0.7, 0.6, 0.5), keep_start=True)
    start = [weight.copy() for weight in loop.model.get_weights()]
    result = loop.run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (0, 0.7)
    assert result["trained_steps"] == 4
    assert "step-00000000.npz" in checkpoints_in(tmp_path)
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), start):
        np.testing.assert_array_equal(ours, expected)
    # The training's model also has these weights.
    for ours, expected in zip(loop.model.get_weights(), start):
        np.testing.assert_array_equal(ours, expected)


def test_later_weights_as_good_as_the_initial_ones_are_kept(tmp_path):
    loop = make_loop(tmp_path, steps=4, validate=Values(0.7, 0.7, 0.5), keep_start=True)
    result = loop.run()
    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.7)


def test_initial_weights_that_cannot_be_kept_are_not_validated(tmp_path):
    validate = Values(0.7, 0.6)
    result = make_loop(tmp_path, steps=4, validate=validate).run()
    assert (result["kept_step"], validate.calls) == (2, 2)


def test_without_validation_the_initial_weights_are_not_kept(tmp_path):
    result = make_loop(tmp_path, steps=3, keep_start=True).run()
    assert (result["kept_step"], result["validation_r_at_1"]) == (3, None)


def test_a_training_that_never_beats_its_initial_weights_ends_early(tmp_path):
    validate = Values(0.9, 0.1)
    result = make_loop(tmp_path, steps=20, validate=validate, keep_start=True, patience=2).run()
    assert (result["kept_step"], result["trained_steps"], validate.calls) == (0, 4, 3)
