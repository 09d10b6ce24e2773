"""N replicas with B / N images give the results of one device with B.

Runs in its own process: the number of devices must be set before TensorFlow starts.
"""

import json
import subprocess
import sys

import pytest
from addons_losses import tfa

from apparel_embed.losses.registry import LOSSES
from apparel_embed.losses.regression import REGRESSION_LOSSES

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf

REPLICAS, NAMES = int(sys.argv[1]), sys.argv[2].split(",")
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, REPLICAS * [tf.config.LogicalDeviceConfiguration()])

from apparel_embed.losses.registry import LOSSES, make_loss
from apparel_embed.losses.regression import REGRESSION_LOSSES, make_regression_loss

STEPS, BATCH = 6, 48
random = np.random.default_rng(0)
images = random.normal(size=(STEPS * BATCH, 10)).astype(np.float32)
# Items are spread over the batch, so most positives are on another replica.
items = np.concatenate([random.permutation(np.arange(BATCH) // 4) for _ in range(STEPS)])
targets = random.normal(size=(STEPS * BATCH, 6)).astype(np.float32)


# Created once: collectives of a second strategy would be mistaken for those of the first.
STRATEGIES = {
    1: tf.distribute.OneDeviceStrategy("CPU:0"),
    REPLICAS: tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(REPLICAS)]),
}


def model_of():
    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [layers.Dense(16, "tanh"), layers.Dense(6), layers.UnitNormalization()]
    )


def loss_of(name):
    if name in REGRESSION_LOSSES:
        return make_regression_loss(name)
    return make_loss(LOSSES[name].config(name=name, margin=0.5))


def batches(name, size=BATCH):
    labels = targets if name in REGRESSION_LOSSES else items
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)


def by_hand(name, replicas, size=BATCH):
    strategy = STRATEGIES[replicas]
    with strategy.scope():
        model = model_of()
        model.build((None, 10))
        optimizer = tf.keras.optimizers.legacy.SGD(0.5)
    loss = loss_of(name)

    def replica_step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return value

    @tf.function
    def step(batch):
        return strategy.experimental_local_results(strategy.run(replica_step, args=batch))

    values = []
    for batch in strategy.experimental_distribute_dataset(batches(name, size)):
        of_replicas = [float(value) for value in step(batch)]
        assert len(of_replicas) == replicas
        assert max(of_replicas) - min(of_replicas) < 1e-6
        values.append(of_replicas[0])
    return np.array(values), model.get_weights()


def by_fit(name, replicas):
    strategy = STRATEGIES[replicas]
    with strategy.scope():
        model = model_of()
        model.build((None, 10))
        model.compile(tf.keras.optimizers.Adam(0.01), loss=loss_of(name))
    history = model.fit(batches(name), epochs=1, verbose=0)
    return np.array(history.history["loss"]), model.get_weights()


def difference(a, b):
    return {
        "value": float(np.abs(a[0] - b[0]).max()),
        "weights": float(max(np.abs(x - y).max() for x, y in zip(a[1], b[1]))),
    }


found = {}
for name in NAMES:
    one = by_hand(name, 1)
    untrained = model_of()
    untrained.build((None, 10))
    found[f"{name} learns"] = difference(one, (one[0], untrained.get_weights()))
    found[name] = difference(by_hand(name, REPLICAS), one)
# Batches that cannot be split evenly.
found["uneven"] = difference(by_hand("semi_hard", REPLICAS, 50), by_hand("semi_hard", 1, 50))
found["fit"] = difference(by_fit("semi_hard", REPLICAS), by_fit("semi_hard", 1))
print(json.dumps(found))
"""


COMPARED = [name for name in LOSSES if name != "tfa_semi_hard" or tfa] + [*REGRESSION_LOSSES]


@pytest.fixture(scope="module")
def differences():
    """Differences between two replicas and one device. A slower test of training uses four."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "2", ",".join(COMPARED)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("loss", COMPARED)
def test_replicas_give_losses_and_weights_of_one_device_at_every_step(differences, loss):
    # Otherwise there would be nothing to compare; smooth_l1 moves weights in small steps.
    assert differences[f"{loss} learns"]["weights"] > 1e-3

    assert differences[loss]["value"] < 1e-5
    assert differences[loss]["weights"] < 1e-5


@pytest.mark.parametrize("what", ["uneven", "fit"])
def test_uneven_batches_and_model_fit_give_the_same_under_a_strategy(differences, what):
    assert differences[what]["value"] < 1e-5
    assert differences[what]["weights"] < 1e-5
