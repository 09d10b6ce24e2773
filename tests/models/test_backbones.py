import socket
import warnings

import keras_cv
import numpy as np
import pytest
import requests
import tensorflow as tf
from keras_cv.src.utils import preset_utils

from apparel_embed.common.errors import UserError
from apparel_embed.models.backbones import (
    BACKBONES,
    load_initial_weights,
    try_initial_weights,
)

pytestmark = pytest.mark.slow

PARAMETERS = {
    "small_cnn": 833_504,
    "efficientnet_lite_b0": 3_413_024,
    "efficientnet_v2_b0": 5_919_312,
    "mobilenet_v3_small": 939_120,
    "mobilenet_v3_large": 2_996_352,
    "resnet18": 11_186_112,
    "resnet50": 23_561_152,
    "resnet50_v2": 23_564_800,
}
SHAPE = (32, 32, 3)


def test_every_backbone_has_a_published_parameter_count():
    assert set(PARAMETERS) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_is_built_offline_with_the_published_number_of_parameters(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network access")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    backbone = BACKBONES[name].build(SHAPE)
    assert backbone.count_params() == PARAMETERS[name]
    assert backbone.input_shape == (None, *SHAPE)
    assert len(backbone.output_shape) == 4


def test_pixel_scales_are_those_of_the_published_weights():
    def scaled(name, pixel):
        return pixel * BACKBONES[name].scale + BACKBONES[name].offset

    assert [scaled("small_cnn", pixel) for pixel in (0, 255)] == pytest.approx([-1, 1])
    assert scaled("efficientnet_lite_b0", 127) == pytest.approx(0)
    assert scaled("efficientnet_lite_b0", 255) == pytest.approx(1)
    assert [scaled("resnet50", pixel) for pixel in (0, 255)] == pytest.approx([0, 1])


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_a_weights_file_gives_a_new_backbone_the_same_features(tmp_path, name, suffix):
    path = str(tmp_path / f"weights{suffix}")
    images = tf.random.stateless_uniform([2, *SHAPE], [1, 2])
    trained, fresh = BACKBONES[name].build(SHAPE), BACKBONES[name].build(SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained.save_weights(path)
    assert not np.array_equal(trained(images), fresh(images))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_initial_weights(fresh, name, path)
    np.testing.assert_array_equal(trained(images), fresh(images))


def test_none_does_not_change_the_weights():
    backbone = BACKBONES["small_cnn"].build(SHAPE)
    before = backbone.get_weights()
    load_initial_weights(backbone, "small_cnn", "none")
    for old, new in zip(before, backbone.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("small_cnn", "nowhere.h5", "none, a weights file"),
        ("resnet18", "resnet50_imagenet", "none, a weights file"),
        (
            "resnet50_v2",
            "imagenet",
            "none, a weights file, resnet50_v2_imagenet",
        ),
    ],
)
def test_a_missing_file_or_unknown_preset_is_an_error(tmp_path, name, value, allowed):
    with pytest.raises(UserError) as error:
        load_initial_weights(BACKBONES["small_cnn"].build(SHAPE), name, value)
    assert f"--init_weights={value}: no such file" in str(error.value)
    assert str(error.value).endswith(f"for {name}, expected one of {allowed}")


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_weights_of_another_architecture_are_refused(tmp_path, suffix):
    path = str(tmp_path / f"other{suffix}")
    small = BACKBONES["small_cnn"].build(SHAPE)
    small.save_weights(path)
    other = tf.keras.Sequential(
        [tf.keras.Input(SHAPE), tf.keras.layers.Conv2D(8, 3), tf.keras.layers.Conv2D(4, 3)]
    )
    with pytest.raises(UserError, match="expected weights of backbone resnet18") as error:
        load_initial_weights(other, "resnet18", path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"these are not weights\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 9]
)
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".txt", ""])
def test_a_file_without_weights_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="expected weights of backbone small_cnn") as error:
        load_initial_weights(BACKBONES["small_cnn"].build(SHAPE), "small_cnn", str(path))
    assert str(path) in str(error.value)


def test_a_directory_is_not_a_weights_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_initial_weights(BACKBONES["small_cnn"].build(SHAPE), "small_cnn", str(tmp_path))


PRESETS = [(name, preset) for name, entry in BACKBONES.items() for preset in entry.presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_belongs_to_the_backbones_class_and_has_as_many_weights(name, preset):
    backbone = BACKBONES[name].build(SHAPE)
    assert preset in type(backbone).presets_with_weights
    assert type(backbone).presets[preset]["metadata"]["params"] == backbone.count_params()


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Replaces the download of a preset with a saved preset with random weights."""
    published = keras_cv.models.ResNetBackbone(
        **{
            **BACKBONES["resnet50"].build(SHAPE).get_config(),
            "include_rescaling": True,
            "input_shape": (None, None, 3),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preset_utils.save_to_preset(published, str(tmp_path))
    requested = []

    def download(handle, path):
        requested.append(handle)
        return str(tmp_path / path)

    monkeypatch.setattr(preset_utils.kagglehub, "model_download", download)
    return published, requested


def test_the_weights_of_a_preset_are_loaded_into_the_backbone(offered):
    published, requested = offered
    backbone = BACKBONES["resnet50"].build(SHAPE)
    load_initial_weights(backbone, "resnet50", "resnet50_imagenet")
    images = tf.random.stateless_uniform([2, *SHAPE], [1, 2])
    np.testing.assert_allclose(backbone(images), published(255 * images), atol=1e-4)
    assert set(requested) == {"keras/resnetv1/keras/resnet50_imagenet/2"}


def test_a_preset_that_cannot_be_downloaded_gives_an_error_of_one_line(monkeypatch):
    def fail(handle, path):
        raise requests.ConnectionError("HTTPSConnectionPool: Max retries\nexceeded")

    monkeypatch.setattr(preset_utils.kagglehub, "model_download", fail)
    with pytest.raises(UserError) as error:
        try_initial_weights("resnet50", "resnet50_imagenet")
    assert str(error.value) == (
        "--init_weights=resnet50_imagenet: cannot be downloaded (ConnectionError: HTTPSConnection"
        "Pool: Max retries exceeded); without network access, use a weights file or none"
    )


def test_nothing_is_downloaded_without_initial_weights(monkeypatch):
    monkeypatch.setattr(preset_utils.kagglehub, "model_download", None)
    try_initial_weights("resnet50", "none")
