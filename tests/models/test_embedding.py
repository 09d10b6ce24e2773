import dataclasses
import json
import warnings

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.embedding import (
    POOLINGS,
    EmbeddingModel,
    ModelConfig,
    build_embedding_model,
    frozen_feature_model,
    load_embedding_model,
    save_embedding_model,
    start_embedding_model,
)

SMALL = ModelConfig(image_size=32, embedding_dim=8)


def random_images(count=3, size=32, seed=1):
    return tf.random.stateless_uniform([count, size, size, 3], [seed, 2], 0, 255)


@pytest.fixture
def bfloat16_policy():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_have_unit_length(pooling):
    config = dataclasses.replace(SMALL, pooling=pooling)
    embeddings = build_embedding_model(config)(random_images())
    assert embeddings.shape == (3, 8)
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_are_float32_of_unit_length_under_mixed_precision(bfloat16_policy, pooling):
    model = build_embedding_model(dataclasses.replace(SMALL, pooling=pooling))
    convolutions = [
        layer
        for layer in model.get_layer("backbone").layers
        if isinstance(layer, tf.keras.layers.Conv2D)
    ]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert model.get_layer("projection").compute_dtype == "float32"
    for one in (model, frozen_feature_model(model)):
        embeddings = one(random_images())
        assert embeddings.dtype == tf.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_an_embedding_does_not_depend_on_its_neighbours():
    model = build_embedding_model(SMALL)
    images = random_images(4)
    together = model(images, training=False)
    for index in range(4):
        alone = model(images[index : index + 1], training=False)
        np.testing.assert_allclose(together[index], alone[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "nested"), [("small_cnn", False), ("efficientnet_v2_b0", True), ("resnet18", False)]
)
def test_momentum_is_set_on_every_batch_norm(name, nested):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = build_embedding_model(
            dataclasses.replace(SMALL, backbone=name, batch_norm_momentum=0.7)
        )
    backbone = model.get_layer("backbone")
    norms = [p for p in backbone.submodules if isinstance(p, tf.keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.7}
    # Each batch norm in use has one moving mean, including those inside blocks.
    means = sum("moving_mean" in weight.name for weight in backbone.weights)
    assert sum(norm.built for norm in norms) == means
    shallow = sum(norm in backbone.layers for norm in norms)
    assert (shallow < means) == nested


def test_momentum_controls_the_moving_mean():
    model = build_embedding_model(dataclasses.replace(SMALL, batch_norm_momentum=0.5))
    norm = model.get_layer("backbone").get_layer("stage0_down_norm")
    convolution = model.get_layer("backbone").get_layer("stage0_down_conv")
    images = random_images()
    mean = tf.reduce_mean(convolution(images / 127.5 - 1), axis=(0, 1, 2))
    model(images, training=True)
    np.testing.assert_allclose(norm.moving_mean, 0.5 * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ModelConfig("mobilenet_v3_small", 32, 5, pooling="gem", batch_norm_momentum=0.8),
        dataclasses.replace(SMALL, pooling="pyramid"),
    ],
)
def test_a_saved_model_is_loaded_exactly_and_without_warnings(tmp_path, config):
    model = build_embedding_model(config)
    model(random_images(), training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_embedding_model(tmp_path / "model", model, config)
        loaded, loaded_config = load_embedding_model(tmp_path / "model")
    assert loaded_config == config
    np.testing.assert_array_equal(
        loaded(random_images(), training=False), model(random_images(), training=False)
    )
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.weights.h5",
    ]


class FailingModel:
    """A model whose disk fills up while it is written."""

    def save_weights(self, path):
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")


def test_a_failed_save_keeps_the_previous_model_and_leaves_no_files(tmp_path):
    model = build_embedding_model(SMALL)
    save_embedding_model(tmp_path, model, SMALL)
    with pytest.raises(OSError, match="no space left"):
        save_embedding_model(tmp_path, FailingModel(), SMALL)
    assert len(list(tmp_path.iterdir())) == 2
    loaded, _ = load_embedding_model(tmp_path)
    np.testing.assert_array_equal(loaded(random_images()), model(random_images()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    save_embedding_model(directory, build_embedding_model(SMALL), SMALL)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("missing", ["model.json", "model.weights.h5"])
def test_a_missing_file_is_named(tmp_path, saved, missing):
    for name, content in saved.items():
        if name != missing:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_embedding_model(tmp_path)
    assert str(error.value) == f"{tmp_path}: expected an embedding model, but {missing} is missing"


CONFIG = dataclasses.asdict(SMALL)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.json", b"{", "Expecting"),
        ("model.json", b"[1, 2]", "must be a mapping"),
        ("model.json", b"\xff\xfe", "decode"),
        ("model.json", json.dumps({**CONFIG, "colour": 1}).encode(), "colour"),
        ("model.json", json.dumps({**CONFIG, "backbone": "vgg"}).encode(), "small_cnn"),
        ("model.json", json.dumps({**CONFIG, "image_size": "x"}).encode(), "cannot be read"),
        ("model.json", json.dumps({**CONFIG, "embedding_dim": 9}).encode(), "(?i)shape"),
        ("model.weights.h5", b"", "model cannot be read"),
        ("model.weights.h5", b"text\n", "model cannot be read"),
    ],
)
def test_a_broken_file_gives_an_error_of_one_line(tmp_path, saved, name, content, reason):
    for good, old in saved.items():
        (tmp_path / good).write_bytes(content if good == name else old)
    with pytest.raises(UserError, match=reason) as error:
        load_embedding_model(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: the model cannot be read: ")
    assert "\n" not in str(error.value)


def test_truncated_weights_are_refused(tmp_path, saved):
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content if name == "model.json" else content[:-2000])
    with pytest.raises(UserError, match="the model cannot be read"):
        load_embedding_model(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("backbone", "vgg16", "small_cnn, efficientnet_lite_b0"), ("pooling", "max", "average, gem")],
)
def test_an_unknown_name_gives_an_error_with_the_valid_ones(field, value, allowed):
    with pytest.raises(UserError) as error:
        build_embedding_model(dataclasses.replace(SMALL, **{field: value}))
    assert f"{field} '{value}': expected one of {allowed}" in str(error.value)


def test_frozen_features_are_the_pooled_features_scaled_to_unit_length():
    model = build_embedding_model(SMALL)
    features = frozen_feature_model(model)(random_images())
    pooled = tf.keras.Model(model.input, model.get_layer("pooling").output)(random_images()).numpy()
    assert features.shape == (3, 192)
    np.testing.assert_allclose(
        features, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-5
    )


def test_images_with_the_wrong_number_of_channels_are_an_error():
    with pytest.raises(ValueError, match="expected shape"):
        build_embedding_model(SMALL)(tf.zeros([1, 32, 32, 4]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_widened_model_embeds_as_before_with_zeros_appended(pooling, tmp_path):
    config = ModelConfig(image_size=32, embedding_dim=4, pooling=pooling)
    model = build_embedding_model(config)
    images = np.random.default_rng(0).uniform(0, 255, [3, 32, 32, 3]).astype(np.float32)

    save_embedding_model(tmp_path, model, config)
    wide = start_embedding_model(dataclasses.replace(config, embedding_dim=7), start=tmp_path)
    wide = wide(images).numpy()

    np.testing.assert_allclose(wide[:, :4], model(images).numpy(), atol=1e-6)
    np.testing.assert_array_equal(wide[:, 4:], 0)


def test_a_rotated_start_has_the_same_embeddings_rotated(tmp_path):
    config = ModelConfig(image_size=32, embedding_dim=4)
    model = build_embedding_model(config)
    projection = model.get_layer("projection")
    projection.set_weights([projection.get_weights()[0], np.arange(4, dtype=np.float32)])
    save_embedding_model(tmp_path, model, config)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, [3, 32, 32, 3]).astype(np.float32)
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0].astype(np.float32)
    rotated = start_embedding_model(config, start=tmp_path, rotation=rotation)
    np.testing.assert_allclose(rotated(images), model(images).numpy() @ rotation, atol=1e-6)


def test_a_model_may_start_from_one_trained_at_another_image_size(tmp_path):
    config = ModelConfig(image_size=32, embedding_dim=4)
    model = build_embedding_model(config)
    save_embedding_model(tmp_path, model, config)
    larger = dataclasses.replace(config, image_size=48, batch_norm_momentum=0.5)
    started = start_embedding_model(larger, start=tmp_path)

    assert started.input_shape == (None, 48, 48, 3)
    for ours, theirs in zip(started.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    norms = [
        one for one in started.submodules if isinstance(one, tf.keras.layers.BatchNormalization)
    ]
    assert {norm.momentum for norm in norms} == {0.5}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backbone", "resnet18", "expected backbone resnet18, got small_cnn"),
        ("pooling", "gem", "expected pooling gem, got average"),
        ("embedding_dim", 3, "expected embedding_dim 3, got 4"),
    ],
)
def test_a_start_of_another_shape_is_refused_with_both_values(tmp_path, field, value, message):
    config = ModelConfig(image_size=32, embedding_dim=4)
    save_embedding_model(tmp_path, build_embedding_model(config), config)
    with pytest.raises(UserError, match=f"cannot start from {tmp_path}: {message}; backbone"):
        start_embedding_model(dataclasses.replace(config, **{field: value}), start=tmp_path)


@pytest.mark.slow
def test_the_keras_model_equals_the_built_one_and_learns(tmp_path):
    tf.keras.utils.set_random_seed(4)
    config = ModelConfig(image_size=16, embedding_dim=4)
    model = EmbeddingModel(config)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 16, 16, 3), np.uint8)
    model.compile("adam", loss=TripletSemiHardLoss(margin=0.3))
    before = model.get_weights()
    model.fit(images, np.arange(8) // 2, epochs=1, verbose=0)
    assert any((old != new).any() for old, new in zip(before, model.get_weights()))

    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    model.write(tmp_path / "stage")
    plain, read = load_embedding_model(tmp_path / "stage")
    assert read == config
    np.testing.assert_array_equal(plain.predict(images, verbose=0), expected)
    again = EmbeddingModel.read(tmp_path / "stage")
    assert isinstance(again, EmbeddingModel) and again.config == config
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)

    model.save(tmp_path / "whole.keras")
    whole = tf.keras.models.load_model(tmp_path / "whole.keras")
    assert whole.config == config
    np.testing.assert_array_equal(whole.predict(images, verbose=0), expected)
