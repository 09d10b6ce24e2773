"""The initial weights that an evaluation compares with."""

from pathlib import Path

import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.models.config import ModelConfig
from apparel_embed.runs.stages.evaluation import _baselines, weights_of
from apparel_embed.store.record import Stage


def stage(**inputs):
    return Stage(Path("run/one"), "f" * 64, {}, {}, 0.0, skipped=True, inputs=inputs)


def test_the_weights_are_those_that_the_first_models_started_from():
    first, later = stage(init_weights="resnet50_imagenet"), stage(start="a" * 64)
    assert weights_of([None, later, first]) == "resnet50_imagenet"
    assert weights_of([None, later]) == "none"


def test_the_error_requests_a_weights_file_of_which_only_the_fingerprint_is_known(tiny_prepared):
    with pytest.raises(UserError, match=r"--init_weights: .*fingerprint a{16}; name that file"):
        _baselines(tiny_prepared, None, ModelConfig(), "a" * 64, 0)
