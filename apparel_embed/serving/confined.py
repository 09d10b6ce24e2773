"""Steps of a graph that may fail, and take nothing along where they do."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Step = Callable[[tf.Tensor], tf.Tensor]
Attempt = Callable[[Step, tf.Tensor, tf.Tensor], tf.Tensor]
"""From a step, bytes (string scalar), and what to give instead, to what the step makes of them."""


def directly(step: Step, encoded: tf.Tensor, instead: tf.Tensor) -> tf.Tensor:
    """Returns what a step makes of bytes; where it fails, all fails."""
    del instead
    return step(encoded)


def confined(step: Step, encoded: tf.Tensor, instead: tf.Tensor) -> tf.Tensor:
    """Returns what a step makes of bytes, or something else where it fails.

    Only tf.data can detect in a graph that something has failed. It sets up its functions again at
    every call, with all that they call, which takes milliseconds for a decoder of every kind and
    nothing for a single operation; and it hands them to other threads unless that is switched off.

    Args:
      step: one operation, or few, without branches or loops.
      encoded: string scalar.
      instead: what to give where it fails, of the same type and rank.
    """
    function = tf.function(step, [tf.TensorSpec([], tf.string)]).get_concrete_function()
    made = {"output_types": [instead.dtype], "output_shapes": [function.output_shapes]}
    dataset = tf.raw_ops.TensorDataset(components=[encoded], output_shapes=[[]])
    dataset = tf.raw_ops.MapDataset(
        input_dataset=dataset,
        other_arguments=[],
        f=function,
        use_inter_op_parallelism=False,
        **made,
    )
    dataset = tf.raw_ops.IgnoreErrorsDataset(input_dataset=dataset, log_warning=False, **made)
    dataset = tf.raw_ops.ConcatenateDataset(
        input_dataset=dataset,
        another_dataset=tf.raw_ops.TensorDataset(
            components=[instead], output_shapes=[instead.shape]
        ),
        **made,
    )
    dataset = tf.raw_ops.TakeDataset(input_dataset=dataset, count=tf.constant(1, tf.int64), **made)
    (found,) = tf.raw_ops.DatasetToSingleElement(dataset=dataset, **made)
    return found
