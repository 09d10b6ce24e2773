"""Requests that TensorFlow Serving replays when it loads a model, so that the first is not slow."""

from __future__ import annotations

import io
from pathlib import Path

import tensorflow as tf
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.serving.client import MODEL_NAME

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Pictures in a request; a server that batches requests makes batches of these sizes only."""

_DIRECTORY, _FILE = "assets.extra", "tf_serving_warmup_requests"


def write_warm_up_requests(saved_model: Path, image_size: int) -> None:
    """Writes `assets.extra/tf_serving_warmup_requests`: a request for every batch size.

    Args:
      saved_model: directory of the SavedModel.
      image_size: side of the model's input, in pixels.

    Raises:
      UserError: if tensorflow-serving-api, whose messages they are, is not installed.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise UserError(
            "warm-up requests need the package tensorflow-serving-api: pip install "
            "'apparel_embed[serving]', or export with --nowarm_up"
        ) from error

    pictures = [_picture(kind, 2 * image_size) for kind in ("JPEG", "PNG")]
    (saved_model / _DIRECTORY).mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(saved_model / _DIRECTORY / _FILE)) as writer:
        for size in BATCH_SIZES:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = MODEL_NAME
            request.model_spec.signature_name = "serving_default"
            batch = [pictures[place % len(pictures)] for place in range(size)]
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(batch, tf.string))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(
                prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString(
                    deterministic=True
                )
            )


def _picture(kind: str, side: int) -> bytes:
    """Returns a picture of a colour gradient in a format of Pillow."""
    file = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((side, side))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(file, kind)
    return file.getvalue()
