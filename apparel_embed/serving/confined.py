"""Steps of a graph that may fail without failing the whole graph."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Step = Callable[[tf.Tensor], tf.Tensor]
Attempt = Callable[[Step, tf.Tensor, tf.Tensor], tf.Tensor]
"""Maps a step, its input (string scalar) and a fallback value to the result of the step."""


def directly(step: Step, encoded: tf.Tensor, instead: tf.Tensor) -> tf.Tensor:
    """Returns the result of a step; if it fails, the whole graph fails."""
    del instead
    return step(encoded)


def confined(step: Step, encoded: tf.Tensor, instead: tf.Tensor) -> tf.Tensor:
    """Returns the result of a step, or a fallback value if it fails.

    Inside a graph, only tf.data can detect failures. At every call it instantiates its functions
    and everything they call, which takes milliseconds for a decoder of all formats but nothing for
    a single operation. It also runs them in other threads unless that is switched off.

    Args:
      step: one operation, or few, without branches or loops.
      encoded: string scalar.
      instead: fallback value, of the same type and rank as the result.
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
