"""Several replicas give what one device gives. In a process of its own: devices come first."""

import subprocess
import sys

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])

from pathlib import Path

from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.optimization import OptimizationConfig
from apparel_embed.training.strategy import make_strategy, start_afresh


def build():
    # No batch norm: its statistics are each replica's own.
    inputs = tf.keras.Input((16, 16, 3))
    backbone = tf.keras.Sequential(
        [tf.keras.layers.Conv2D(8, 3, strides=2), tf.keras.layers.ReLU()], name="backbone"
    )
    x = tf.keras.layers.Flatten()(backbone(inputs / 255.0))
    # What is dropped depends on the place in the whole batch, not in the replica's.
    x = tf.keras.layers.Dropout(0.3)(x)
    x = tf.keras.layers.Dense(8)(x)
    return tf.keras.Model(inputs, tf.keras.layers.UnitNormalization()(x))


def batches_of(size):
    def one(step):
        labels = tf.range(size, dtype=tf.int32) % 4
        seed = tf.stack([step, step])
        images = tf.random.stateless_uniform([size, 16, 16, 3], seed, 0.0, 255.0)
        return images, labels

    return lambda first: tf.data.Dataset.range(first, 5).map(one)


def train(name, size):
    start_afresh(0)
    loop = TrainingLoop(
        build_model=build,
        model_config=ModelConfig(),
        batches=batches_of(size),
        loss=TripletSemiHardLoss(0.5),
        validate=None,
        optimization=OptimizationConfig(
            steps=5, optimizer="sgd", learning_rate=0.1, weight_decay=0.0
        ),
        config=LoopConfig(log_every=1),
        strategy=make_strategy(name),
        directory=Path(sys.argv[1]) / f"{name}_{size}",
        what=name,
    )
    result = loop.run()
    return result["last_loss"], loop.model.get_weights()


assert make_strategy("mirrored").num_replicas_in_sync == 2
# The second training's batches have another size, which is nothing to the first one's collectives.
for size in (16, 24):
    loss, weights = train("one", size)
    loss_2, weights_2 = train("mirrored", size)
    np.testing.assert_allclose(loss_2, loss, atol=1e-5)
    for ours, expected in zip(weights_2, weights):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
"""


def test_two_replicas_give_the_weights_of_one_device_with_the_whole_batch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
