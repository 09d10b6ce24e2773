"""A replacement for TensorFlow Serving: its gRPC service and REST API over a SavedModel."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODEL = "apparel_embed"


class Behaviour:
    """Behaviour of a server: it answers with a SavedModel, after injected failures.

    Attributes:
      failures: one per request, in order: a gRPC code, an HTTP status, or seconds to wait before
        the answer.
      requests: number of images of each answered request.
      rename: new names of outputs in answers.
    """

    def __init__(self, saved_model):
        self._loaded = tf.saved_model.load(str(saved_model))
        self.version = int(saved_model.name)
        self.reset()

    def reset(self):
        self.failures, self.requests, self.rename = [], [], {}

    def next_failure(self):
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, float):
            time.sleep(failure)
            return None
        return failure

    def has(self, signature):
        return signature in self._loaded.signatures

    def answer(self, images, signature):
        self.requests.append(len(images))
        found = self._loaded.signatures[signature](image_bytes=tf.constant(images, tf.string))
        return {self.rename.get(name, name): values.numpy() for name, values in found.items()}


def _no_signature(name):
    """Returns TensorFlow Serving's message."""
    return f'Serving signature key "{name}" not found.'


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The official service."""

    def __init__(self, behaviour):
        self._behaviour = behaviour

    def Predict(self, request, context):
        failure = self._behaviour.next_failure()
        if failure is not None:
            context.abort(failure, "injected failure")
        spec = request.model_spec
        if spec.name != MODEL or spec.version.value not in (0, self._behaviour.version):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: {spec.name}")
        if not self._behaviour.has(spec.signature_name):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, _no_signature(spec.signature_name))
        if set(request.inputs) != {"image_bytes"}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such input")
        images = list(tf.make_ndarray(request.inputs["image_bytes"]))
        found = self._behaviour.answer(images, spec.signature_name)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = MODEL
        response.model_spec.version.value = self._behaviour.version
        for name, values in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


@contextlib.contextmanager
def grpc_server(behaviour):
    """Serves gRPC and yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service = PredictionService(behaviour)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(behaviour):
    """Serves REST and yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            versions = f"/v1/models/{MODEL}/versions/{behaviour.version}:predict"
            signature = body.get("signature_name", "serving_default")
            failure = behaviour.next_failure()
            if failure is not None:
                self._send(failure, {"error": "injected failure"})
            elif self.path not in (f"/v1/models/{MODEL}:predict", versions):
                self._send(404, {"error": f"Servable not found: {self.path}"})
            elif not behaviour.has(signature):
                self._send(400, {"error": _no_signature(signature)})
            else:
                images = [base64.b64decode(one["image_bytes"]["b64"]) for one in body["instances"]]
                columns = {
                    # As TensorFlow Serving does if a name does not end in _bytes.
                    name: [[text.decode() for text in row] for row in values]
                    if values.dtype == object
                    else values.tolist()
                    for name, values in behaviour.answer(images, signature).items()
                }
                rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
                self._send(200, {"predictions": rows})

        def _send(self, status, value):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
