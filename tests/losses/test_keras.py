import json

import numpy as np
import pytest
import tensorflow as tf
from addons_losses import needs_addons, tfa
from loss_batches import make_batch, value_and_gradient

from apparel_embed.losses.keras import (
    LiftedStructLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
    WholeBatchLoss,
)
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

LABELS, EMBEDDINGS = make_batch(0, 17, 4, 7, "unit")
CLASSES = (TripletSemiHardLoss, TripletHardLoss, LiftedStructLoss)


@tf.keras.saving.register_keras_serializable(package="tests")
def absolute_products(embeddings):
    return tf.abs(tf.matmul(embeddings, embeddings, transpose_b=True))


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        (TripletSemiHardLoss, semi_hard_triplet_loss),
        (TripletHardLoss, hard_triplet_loss),
        (LiftedStructLoss, lifted_structure_loss),
    ],
)
def test_a_loss_is_its_function_with_the_same_defaults(loss, function):
    assert float(loss()(LABELS, EMBEDDINGS)) == float(function(LABELS, EMBEDDINGS))
    assert float(loss(0.2)(LABELS, EMBEDDINGS)) == float(function(LABELS, EMBEDDINGS, 0.2))


@needs_addons
@pytest.mark.parametrize("metric", ["L2", "squared-L2", "angular", absolute_products])
def test_semi_hard_has_the_arguments_and_results_of_addons(metric):
    arguments = {"margin": 0.4, "distance_metric": metric, "name": "mine"}
    ours, theirs = (
        loss(**arguments) for loss in (TripletSemiHardLoss, tfa.losses.TripletSemiHardLoss)
    )
    assert (ours.name, ours.reduction) == (theirs.name, theirs.reduction)
    for mine, expected in zip(
        value_and_gradient(ours, LABELS, EMBEDDINGS), value_and_gradient(theirs, LABELS, EMBEDDINGS)
    ):
        np.testing.assert_allclose(mine, expected, atol=1e-6)


@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize("metric", ["squared-L2", absolute_products])
def test_a_configuration_sent_through_json_gives_the_same_loss(loss, metric):
    first = loss(margin=0.25, distance_metric=metric, name="mine")
    config = json.loads(json.dumps(first.get_config()))
    second = loss.from_config(config)
    assert second.get_config() == first.get_config()
    assert second.name == "mine"
    assert float(second(LABELS, EMBEDDINGS)) == float(first(LABELS, EMBEDDINGS))


def test_soft_is_kept_in_the_configuration():
    again = TripletHardLoss.from_config(TripletHardLoss(soft=True).get_config())
    assert float(again(LABELS, EMBEDDINGS)) == float(
        hard_triplet_loss(LABELS, EMBEDDINGS, soft=True)
    )


@pytest.mark.parametrize("loss", CLASSES)
def test_keras_loads_a_compiled_model_with_its_loss(loss, tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(7,))])
    model.compile("sgd", loss=loss(margin=0.25))
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is loss
    assert loaded.loss.get_config() == model.loss.get_config()


@pytest.mark.slow
@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_model_learns_in_any_precision_and_with_a_short_last_batch(loss, precision):
    tf.keras.utils.set_random_seed(0)
    policy = tf.keras.mixed_precision.Policy(precision)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(8, "relu", dtype=policy),
            tf.keras.layers.Dense(4, dtype=policy),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(0.02), loss=loss(margin=0.3))
    labels, images = make_batch(1, 65, 4, 7, "clusters")
    # The last batch is one image, which has no positive.
    history = model.fit(images, labels, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


@pytest.mark.parametrize("loss", CLASSES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": -0.1}, "margin -0.1; expected a number of 0 or more"),
        ({"margin": float("nan")}, "margin nan"),
        (
            {"distance_metric": "cosine"},
            "'cosine' is unknown; expected one of L2, squared-L2, angular",
        ),
        ({"reduction": "sum"}, "reduction 'sum': expected 'none'"),
    ],
)
def test_an_invalid_argument_gives_an_error_with_the_valid_ones(loss, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss(**arguments)


def test_whole_batch_loss_is_its_function_on_one_device():
    loss = WholeBatchLoss(lambda labels, embeddings: tf.reduce_sum(embeddings), "sum")
    assert loss.name == "sum"
    assert float(loss(LABELS, EMBEDDINGS)) == pytest.approx(EMBEDDINGS.sum(), rel=1e-6)


EAN = 4006381333930


ITEMS = np.repeat(np.arange(4), 3)


def loss_in_keras(labels, precision="float32", jit_compile=None):
    """Returns Keras' value for labels [12], with the same embeddings in each call."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.layers.Dense(8, input_shape=(5,), dtype=precision)])
    # This loss is the quickest to trace; the check is the same in all of them.
    model.compile(loss=TripletHardLoss(0.5, distance_metric="angular"), jit_compile=jit_compile)
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    return model.evaluate(features, labels, batch_size=12, verbose=0)


def test_the_value_in_keras_does_not_depend_on_size_and_type_of_labels():
    expected = loss_in_keras(ITEMS)
    assert expected == pytest.approx(1.27219, abs=1e-3)
    for labels in (ITEMS + EAN, ITEMS + 2.0**24 - 4):
        assert loss_in_keras(labels) == expected
    assert loss_in_keras(ITEMS + EAN, jit_compile=True) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("precision", "first", "limit"),
    [
        ("float32", EAN, 2**24),
        ("float16", 3000, 2**11),
        ("bfloat16", 300, 2**8),
        # Keras casts arrays to float32 before it casts them to float64 again.
        ("float64", EAN, 2**24),
    ],
)
def test_labels_that_keras_casts_to_the_type_of_the_output_are_refused(precision, first, limit):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"whole numbers below {limit} are"):
        loss_in_keras(ITEMS + float(first), precision)


def test_under_xla_only_integer_labels_are_accepted():
    with pytest.raises(ValueError, match=r"labels of type float32 .* under jit_compile; pass int"):
        loss_in_keras(ITEMS.astype(np.float64), jit_compile=True)


@pytest.mark.parametrize("loss", CLASSES)
def test_floating_point_labels_of_a_loss_called_directly_are_exact_or_refused(loss):
    expected = float(loss()(LABELS, EMBEDDINGS))
    for dtype, below in (("float64", 2**53), ("float32", 2**24), ("float16", 2**11)):
        labels = (LABELS + (below - 1 - LABELS.max())).astype(dtype)
        assert float(loss()(labels, EMBEDDINGS)) == expected
        for wrong in (labels + 1, -labels - 1, LABELS + 0.5, LABELS * np.nan, LABELS - np.inf):
            with pytest.raises(tf.errors.InvalidArgumentError, match=f"labels are {dtype}"):
                loss()(wrong.astype(dtype), EMBEDDINGS)
