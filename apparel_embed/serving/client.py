"""A client of TensorFlow Serving, over gRPC or REST."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Union

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import check_settings, setting
from apparel_embed.common.text import one_line
from apparel_embed.serving.embeddings import ImageLimits, ServedModel
from apparel_embed.serving.errors import (
    DeadlineExceeded,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    ServingError,
    WrongAnswer,
)
from apparel_embed.serving.exported import DETECT

MODEL_NAME = "apparel_embed"
"""Name of the model on a server."""

_UNAVAILABLE = (429, 502, 503, 504)
# Errors by gRPC code and HTTP status.
_ERRORS: dict[str | int, type[ServingError]] = {
    **dict.fromkeys(("UNAVAILABLE", "RESOURCE_EXHAUSTED", *_UNAVAILABLE), ServerUnavailable),
    **dict.fromkeys(("DEADLINE_EXCEEDED", 408), DeadlineExceeded),
    **dict.fromkeys(("NOT_FOUND", 404), ModelNotFound),
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", 400, 412, 413), RequestRefused),
}

_Output = tuple[type, tuple[Union[int, str], ...]]
# Outputs of the signatures: type, and shape of a row.
_WHOLE: dict[str, _Output] = {"embedding": (np.float32, ("dim",)), "valid": (bool, ())}
_GARMENTS: dict[str, _Output] = {
    "boxes": (np.float32, ("garments", 4)),
    "scores": (np.float32, ("garments",)),
    "found": (bool, ("garments",)),
    "vertical_name": (object, ("garments",)),
    "embedding": (np.float32, ("garments", "dim")),
    "valid": (bool, ()),
}


@dataclasses.dataclass(frozen=True)
class ClientConfig:
    """How requests are sent to a server.

    Attributes:
      deadline: seconds to wait for a batch, above 0; with REST, for each attempt.
      secure: whether gRPC is encrypted; REST is encrypted with an https:// address.
      limits: which images are accepted.

    Examples:
      >>> ClientConfig(deadline=2.0, attempts=1).batch_size
      32
    """

    model_name: str = setting(MODEL_NAME, "name of the model on the server")
    version: int | None = setting(None, "version of the model; by default the newest", 1)
    deadline: float = setting(10.0, "seconds to wait for an answer", 0.001)
    attempts: int = setting(4, "number of attempts while the server is unavailable", 1, 5)
    batch_size: int = setting(32, "images per request", 1)
    batch_bytes: int = setting(16 * 2**20, "bytes per request, unless a single image has more", 1)
    secure: bool = setting(False, "encrypt gRPC; for REST use an https:// address")
    limits: ImageLimits = ImageLimits()

    def __post_init__(self) -> None:
        check_settings(self)


class Client(ServedModel):
    """Embeds encoded images with a server; thread-safe.

    Args:
      address: `host:port` for gRPC, `http://host:port` or `https://...` for REST.
      config: how to send requests.

    Raises:
      UserError: if the address is invalid, or the package for gRPC is not installed.

    Examples:
      >>> from pathlib import Path
      >>> with Client("localhost:8500") as client:
      ...     found = client.embed([Path("dress.webp").read_bytes(), b"not an image"])
      >>> found.valid
      array([ True, False])
    """

    def __init__(self, address: str, config: ClientConfig = ClientConfig()) -> None:
        super().__init__(config.limits, config.batch_size, config.batch_bytes)
        self._address = address
        is_rest = address.startswith(("http://", "https://"))
        self._transport = _Rest(address, config) if is_rest else _Grpc(address, config)
        self._verticals: tuple[str, ...] | None = None
        self._detects: bool | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals, in the order of `vertical_scores`; () for a model without head.

        They are those of the latest answer; without one, a request is sent.
        """
        if self._verticals is None:
            self.embed([])
        return self._verticals or ()

    @property
    def detects(self) -> bool:
        """Whether the model detects garments, i.e. it was exported with `--detector`.

        The first access sends a request.
        """
        if self._detects is None:
            try:
                self._predict([b""], DETECT)
                self._detects = True
            except RequestRefused as error:
                # TensorFlow Serving: 'Serving signature key "detect_and_embed" not found.'
                if DETECT not in str(error):
                    raise
                self._detects = False
        return self._detects

    def _predict(self, images: list[bytes], signature: str) -> dict[str, np.ndarray]:
        answer = self._transport.predict(images, signature)
        if signature == DETECT:
            return self._checked(answer, len(images), _GARMENTS)
        names = answer["vertical_name"][0] if {"vertical", "vertical_name"} <= set(answer) else ()
        found = self._checked(
            answer,
            len(images),
            {**_WHOLE, **({"vertical": (np.float32, (len(names),))} if len(names) else {})},
        )
        self._verticals = tuple(
            name.decode() if isinstance(name, bytes) else str(name) for name in names
        )
        return found

    def _checked(
        self, answer: Mapping[str, Any], count: int, outputs: Mapping[str, _Output]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs in an answer for `count` images, converted to their types.

        Raises:
          WrongAnswer: if an output is missing, or has the wrong shape.
        """
        found: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        for name, (kind, columns) in outputs.items():
            if name not in answer:
                raise WrongAnswer(f"{self._address}: the answer has no {name!r}")
            try:
                value = found[name] = np.asarray(answer[name], kind)
            except (TypeError, ValueError) as error:
                raise WrongAnswer(f"{self._address}: {name!r} cannot be read ({error})") from error
            fits = value.ndim == 1 + len(columns) and len(value) == count
            for want, have in zip(columns, value.shape[1:]):
                # A named dimension may have any size, but the same one in all outputs.
                fits &= have == (want if isinstance(want, int) else sizes.setdefault(want, have))
            if not fits:
                raise WrongAnswer(
                    f"{self._address}: {name!r} of shape {value.shape} for {count} images; "
                    f"expected {(count, *columns)}"
                )
        return found


class _Rest:
    """TensorFlow Serving's REST API."""

    def __init__(self, address: str, config: ClientConfig) -> None:
        version = "" if config.version is None else f"/versions/{config.version}"
        self._address, self._deadline = address, config.deadline
        self._url = f"{address.rstrip('/')}/v1/models/{config.model_name}{version}:predict"
        retry = Retry(
            total=config.attempts - 1,
            # A request that timed out is not sent again: the deadline has passed.
            read=False,
            backoff_factor=0.1,
            backoff_max=2,
            status_forcelist=_UNAVAILABLE,
            allowed_methods={"POST"},
            raise_on_status=False,
        )
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def predict(self, images: list[bytes], signature: str) -> Mapping[str, Any]:
        instances = [{"image_bytes": {"b64": base64.b64encode(one).decode()}} for one in images]
        request: dict[str, Any] = {"signature_name": signature, "instances": instances}
        try:
            answer = self._session.post(self._url, json=request, timeout=self._deadline)
        except requests.Timeout as error:
            raise DeadlineExceeded(f"{self._address}: no answer in {self._deadline:g} s") from error
        except requests.ConnectionError as error:
            raise ServerUnavailable(f"{self._address}: no connection ({error})") from error
        except requests.RequestException as error:
            raise UserError(f"{self._address}: not a valid server address ({error})") from error
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not answer.ok:
            reason = found.get("error") if isinstance(found, dict) else None
            kind = _ERRORS.get(answer.status_code, ServingError)
            details = one_line(reason or answer.reason)
            raise kind(f"{self._address}: status {answer.status_code}: {details}")
        try:
            rows = found["predictions"]
            return {name: np.array([row[name] for row in rows]) for name in rows[0]}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WrongAnswer(
                f"{self._address}: the answer contains no predictions ({error!r})"
            ) from error

    def close(self) -> None:
        self._session.close()


class _Grpc:
    """TensorFlow Serving's PredictionService; imports packages that REST does not need."""

    def __init__(self, address: str, config: ClientConfig) -> None:
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise UserError(
                "gRPC needs the package tensorflow-serving-api: pip install "
                "'apparel_embed[serving]', or use an http:// address"
            ) from error

        self._address, self._config = address, config
        options = [
            # Answers with many embeddings exceed the default limit of 4 MB.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.service_config", _service_config(config.attempts)),
        ]
        if config.secure:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, images: list[bytes], signature: str) -> Mapping[str, Any]:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._config.model_name
        request.model_spec.signature_name = signature
        if self._config.version is not None:
            request.model_spec.version.value = self._config.version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string))
        try:
            answer = self._stub.Predict(request, timeout=self._config.deadline)
        except grpc.RpcError as error:
            code = error.code().name
            details = one_line(error.details() or "")
            raise _ERRORS.get(code, ServingError)(f"{self._address}: {code}: {details}") from error
        except ValueError as error:
            raise UserError(f"{self._address}: not a valid server address ({error})") from error
        try:
            return {name: tf.make_ndarray(values) for name, values in answer.outputs.items()}
        except (TypeError, ValueError) as error:
            raise WrongAnswer(f"{self._address}: the answer cannot be read ({error})") from error

    def close(self) -> None:
        self._channel.close()


def _service_config(attempts: int) -> str:
    """Returns a gRPC service config with a retry policy, as JSON."""
    method: dict[str, Any] = {"name": [{"service": "tensorflow.serving.PredictionService"}]}
    # gRPC rejects a policy with one attempt, which is the default anyway.
    if attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return json.dumps({"methodConfig": [method]})
