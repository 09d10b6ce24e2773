"""The losses in Keras 3 models; skipped if Keras 2 is installed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from loss_batches import make_batch, value_and_gradient

keras = pytest.importorskip("keras", "3.0", reason="needs Keras 3")

from apparel_embed.losses import keras as keras2  # noqa: E402
from apparel_embed.losses import keras3  # noqa: E402

LABELS, EMBEDDINGS = make_batch(0, 17, 4, 7, "unit")
NAMES = ("TripletSemiHardLoss", "TripletHardLoss", "LiftedStructLoss")
EAN = 4006381333930


@keras.saving.register_keras_serializable(package="tests")
def products(embeddings):
    return tf.abs(tf.matmul(embeddings, embeddings, transpose_b=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("metric", ["L2", "squared-L2", "angular", products])
def test_value_and_gradient_equal_those_of_the_keras_2_loss(name, metric):
    for ours, expected in zip(
        value_and_gradient(getattr(keras3, name)(0.4, distance_metric=metric), LABELS, EMBEDDINGS),
        value_and_gradient(getattr(keras2, name)(0.4, distance_metric=metric), LABELS, EMBEDDINGS),
    ):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_learns_with_the_loss(name, jit_compile):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])
    loss = getattr(keras3, name)(0.3)
    model.compile(keras.optimizers.Adam(0.02), loss=loss, jit_compile=jit_compile)
    labels, images = make_batch(1, 64, 4, 7, "clusters")
    # Labels too large for float32 to be exact: Keras 3's own losses would round them.
    history = model.fit(images, labels + EAN, batch_size=32, epochs=10, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("metric", ["squared-L2", products])
def test_a_saved_and_loaded_model_has_the_same_loss(name, metric, tmp_path):
    model = keras.Sequential([keras.layers.Input((7,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=getattr(keras3, name)(0.25, distance_metric=metric, name="mine"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is getattr(keras3, name)
    assert loaded.loss.get_config() == model.loss.get_config()
    assert float(loaded.loss(LABELS, EMBEDDINGS)) == float(model.loss(LABELS, EMBEDDINGS))


def test_sample_weights_are_refused():
    with pytest.raises(ValueError, match="mine: expected no sample_weight"):
        keras3.TripletSemiHardLoss(name="mine")(LABELS, EMBEDDINGS, np.ones(17))


def test_soft_is_kept_in_the_configuration():
    first = keras3.TripletHardLoss(soft=True)
    again = keras3.TripletHardLoss.from_config(json.loads(json.dumps(first.get_config())))
    assert float(again(LABELS, EMBEDDINGS)) == float(first(LABELS, EMBEDDINGS))


def run(script):
    # `import apparel_embed` set TF_USE_LEGACY_KERAS in this process.
    environment = {name: os.environ[name] for name in os.environ if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


REPLICAS = """
import json, os, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
from apparel_embed.losses.keras3 import TripletSemiHardLoss

random = np.random.default_rng(0)
images = random.normal(size=(96, 10)).astype(np.float32)
labels = np.concatenate([random.permutation(np.arange(24) // 4) for _ in range(4)])

def trained(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(6)])
        model.compile(keras.optimizers.SGD(0.1), loss=TripletSemiHardLoss(0.5), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(24)
    losses = model.fit(batches, epochs=2, verbose=0, shuffle=False).history["loss"]
    return losses, model.get_weights()

one = trained(tf.distribute.OneDeviceStrategy("CPU:0"))
two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
print(json.dumps({
    "losses": [one[0], two[0]],
    "weights": max(float(abs(a - b).max()) for a, b in zip(one[1], two[1])),
}))
"""


@pytest.mark.slow
def test_two_replicas_give_the_losses_and_weights_of_one_device():
    found = run(REPLICAS)
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    assert found["losses"][0][1] < found["losses"][0][0]
    assert found["weights"] < 1e-5


ALONE = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tf_keras", "keras_cv", "pyarrow", "sklearn", "array_record"):
            raise ModuleNotFoundError(name + " is not installed here")

sys.meta_path.insert(0, Blocker())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tf_keras" else found(name, *rest)
from apparel_embed.losses.keras3 import TripletSemiHardLoss
import tensorflow as tf
loss = float(TripletSemiHardLoss(0.75)([0, 0, 1], [[0.0], [1.0], [1.5]]))
try:
    import apparel_embed.models.embedding
    refused = ""
except ImportError as error:
    refused = str(error)
print(json.dumps({"keras": tf.keras.__version__, "loss": loss, "refused": refused}))
"""


@pytest.mark.slow
def test_keras3_needs_only_tensorflow_and_does_not_change_tf_keras():
    found = run(ALONE)
    assert found["keras"].startswith("3.")
    assert found["loss"] == pytest.approx((0.25 + 1.25) / 2, abs=1e-5)
    assert "tf.keras is Keras 3" in found["refused"]
    assert "expected Keras 2. Install the version of tf_keras" in found["refused"]
