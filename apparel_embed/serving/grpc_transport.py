"""The gRPC side of the client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.serving.errors import (
    DeadlineExceeded,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    ServingError,
    WrongAnswer,
)

if TYPE_CHECKING:
    from apparel_embed.serving.client import ClientConfig

try:
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise UserError(
        "asking by gRPC needs the package tensorflow-serving-api: pip install "
        "'apparel_embed[serving]', or name an address of http://"
    ) from error

_ERRORS = {
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.INVALID_ARGUMENT: RequestRefused,
    grpc.StatusCode.FAILED_PRECONDITION: RequestRefused,
}


class GrpcTransport:
    """Asks TensorFlow Serving's PredictionService.

    Args:
      address: `host:port`.
      config: how to ask.
    """

    def __init__(self, address: str, config: ClientConfig) -> None:
        self._address, self._config = address, config
        options = [
            # An answer of many embeddings is longer than the 4 MB that are allowed by default.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.service_config", _service_config(config.attempts)),
        ]
        if config.secure:
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, pictures: list[bytes]) -> Mapping[str, np.ndarray]:
        """Returns the outputs of `serving_default` for a batch.

        Raises:
          ServingError: as one of its kinds.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._config.model_name
        request.model_spec.signature_name = "serving_default"
        if self._config.version is not None:
            request.model_spec.version.value = self._config.version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(pictures, tf.string))
        try:
            answer = self._stub.Predict(request, timeout=self._config.deadline)
        except grpc.RpcError as error:
            kind = _ERRORS.get(error.code(), ServingError)
            details = " ".join((error.details() or "").split())
            raise kind(f"{self._address}: {error.code().name}: {details}") from error
        except ValueError as error:
            raise UserError(f"{self._address}: no address of a server ({error})") from error
        try:
            return {name: tf.make_ndarray(values) for name, values in answer.outputs.items()}
        except (TypeError, ValueError) as error:
            raise WrongAnswer(f"{self._address}: the answer cannot be read ({error})") from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def _service_config(attempts: int) -> str:
    """Returns gRPC's own retry policy, as JSON."""
    method: dict[str, Any] = {"name": [{"service": "tensorflow.serving.PredictionService"}]}
    # A policy of one attempt is refused: without, there is one.
    if attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return json.dumps({"methodConfig": [method]})
