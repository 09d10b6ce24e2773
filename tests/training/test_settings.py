import dataclasses

import numpy as np
import pytest

from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import FEW_IMAGES, OptimizationConfig


@pytest.mark.parametrize(
    ("validate_every", "steps", "expected"),
    [
        (0, 1000, 100),
        (0, 1009, 100),
        (0, 10, 1),
        # At least one step between validations.
        (0, 3, 1),
        (7, 1000, 7),
        (2000, 1000, 2000),
    ],
)
def test_there_are_ten_validations_by_default(validate_every, steps, expected):
    assert LoopConfig(validate_every=validate_every).validation_interval(steps) == expected


def test_the_number_of_images_decides_whether_the_backbone_is_trained():
    config = OptimizationConfig(steps=10, frozen_steps=3, train_backbone=None)
    assert config.settled(FEW_IMAGES - 1).train_backbone is False
    assert config.settled(FEW_IMAGES).train_backbone is True
    for given in (True, False):
        decided = dataclasses.replace(config, train_backbone=given)
        assert decided.settled(0) == decided.settled(10**6) == decided
    assert dataclasses.replace(config.settled(0), train_backbone=None) == config


@pytest.mark.parametrize(
    ("train_backbone", "frozen"),
    [(True, [True, True, False, False]), (False, [True] * 4)],
)
def test_a_backbone_is_frozen_for_the_first_steps_or_for_all(train_backbone, frozen):
    config = OptimizationConfig(steps=4, frozen_steps=2, train_backbone=train_backbone)
    assert [config.is_frozen(step) for step in range(4)] == frozen


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine(optimizer):
    config = OptimizationConfig(
        steps=100, optimizer=optimizer, learning_rate=0.2, warmup_fraction=0.1
    )
    schedule = make_optimizer(config)._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]

    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.1, 0.0], atol=1e-6)


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    config = OptimizationConfig(steps=10, learning_rate=0.2, warmup_fraction=0.0)

    assert float(make_optimizer(config)._learning_rate(0)) == pytest.approx(0.2)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoopConfig().log_every = 3
