"""The embedding model as TensorFlow Lite, for phones and small machines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.serving.exported import TFLITE_KINDS


def to_tflite(model: tf.keras.Model, kind: str, examples: np.ndarray) -> bytes:
    """Converts a model; callers have to decode images and fit them into the square.

    Args:
      model: maps float32 [batch, size, size, 3], values 0..255, to embeddings [batch, dim].
      kind: "float16" stores weights in 16 bits; "int8" computes in 8 bits, except for operations
        that TensorFlow Lite has only in floating point.
      examples: uint8 [n, size, size, 3], representative images to find the ranges of values for
        int8; at least 1.

    Returns:
      The content of a `.tflite` file with the same inputs and outputs as the model.

    Raises:
      UserError: if the kind is unknown, or there are no examples.
    """
    if kind not in TFLITE_KINDS:
        raise UserError(f"TFLite model {kind!r}: expected one of {', '.join(TFLITE_KINDS)}")
    if not len(examples):
        raise UserError("TFLite: no representative images; expected at least 1")
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")
    serve = tf.function(lambda images: model(images, training=False), [signature])
    module = tf.Module()
    module.weights, module.serve = model.variables, serve
    with tempfile.TemporaryDirectory() as temporary:
        # Via a SavedModel: from concrete functions the converter freezes variables less well.
        tf.saved_model.save(module, temporary, signatures=serve.get_concrete_function())
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        else:
            converter.representative_dataset = lambda: (
                [example[np.newaxis].astype(np.float32)] for example in examples
            )
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]
        return converter.convert()


class TFLiteModel:
    """Embeds decoded images with the content of a `.tflite` file."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = tf.lite.Interpreter(model_content=content)
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def __call__(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Embeds batches of uint8 [batch, size, size, 3]: float32 [n, dim]."""
        parts = [np.zeros([0, self._output["shape"][-1]], np.float32)]
        for batch in batches:
            images = np.asarray(batch, np.float32)
            self._interpreter.resize_tensor_input(self._input["index"], images.shape)
            self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(self._input["index"], images)
            self._interpreter.invoke()
            parts.append(self._interpreter.get_tensor(self._output["index"]))
        return np.concatenate(parts)
