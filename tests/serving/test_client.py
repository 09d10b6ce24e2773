"""The client against a server built with the official stubs, and the model in process."""

import dataclasses
import socket
import subprocess
import sys

import grpc
import numpy as np
import pytest
from prediction_server import Behaviour, grpc_server, rest_server
from serving_models import DIM, VERTICALS, drawn, encoded, exif

from apparel_embed.common.errors import UserError
from apparel_embed.serving import (
    Client,
    ClientConfig,
    DeadlineExceeded,
    ImageLimits,
    LocalModel,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    ServingError,
    WrongAnswer,
)

pytestmark = pytest.mark.slow

IMAGES = [
    encoded(drawn(seed=1)),
    encoded(drawn(90, 30, seed=2), "WEBP", lossless=True),
    b"not an image",
    encoded(drawn(seed=3), "PNG"),
    encoded(drawn(seed=4), "AVIF", quality=100),
    b"",
]
VALID = [True, True, False, True, True, False]
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def behaviour(exported_with_head):
    return Behaviour(exported_with_head)


@pytest.fixture(scope="module")
def addresses(behaviour):
    with grpc_server(behaviour) as one, rest_server(behaviour) as other:
        yield {"grpc": one, "rest": other}


@pytest.fixture(params=["grpc", "rest"])
def kind(request, behaviour):
    behaviour.reset()
    return request.param


@pytest.fixture
def embed(addresses, kind):
    """A function that embeds images with a client of some configuration."""

    def embed(images, **config):
        with Client(addresses[kind], ClientConfig(**config)) as client:
            return client.embed(images)

    return embed


@pytest.fixture(scope="module")
def local(exported_with_head):
    return LocalModel(exported_with_head)


def test_a_server_and_the_model_in_process_give_the_same(embed, local):
    remote, here = embed(IMAGES), local.embed(IMAGES)

    assert here.valid.tolist() == VALID
    assert (here.embeddings.dtype, here.embeddings.shape) == (np.float32, (6, DIM))
    assert (here.vertical_scores.dtype, here.vertical_scores.shape) == (np.float32, (6, 3))
    for one, other in zip(remote, here):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_images_of_other_formats_are_converted(local):
    image = drawn(seed=9)
    kinds = [encoded(image, kind) for kind in ("PNG", "TIFF", "BMP", "PPM")]
    kinds.append(encoded(image, "WEBP", lossless=True))
    found = local.embed(kinds)

    assert found.valid.all()
    assert (found.embeddings @ found.embeddings[0] > 0.999).all()


def test_requests_are_split_by_number_and_by_bytes(embed, behaviour, local):
    images = [IMAGES[0]] * 5
    whole = local.embed(images).embeddings

    np.testing.assert_allclose(embed(images, batch_size=2).embeddings, whole, atol=1e-6)
    assert behaviour.requests == [2, 2, 1]
    behaviour.reset()
    few = 3 * len(IMAGES[0]) + 1
    np.testing.assert_allclose(embed(images, batch_bytes=few).embeddings, whole, atol=1e-6)
    assert behaviour.requests == [3, 2]
    behaviour.reset()
    assert embed(images, batch_bytes=1).valid.all()
    assert behaviour.requests == [1] * 5


def test_no_images_give_no_rows(embed, local):
    for found in (embed([]), local.embed([])):
        assert found.embeddings.shape == (0, DIM)
        assert found.valid.shape == (0,)
        assert found.vertical_scores.shape == (0, len(VERTICALS))


def test_verticals_are_those_of_the_model(addresses, kind, behaviour, local):
    with Client(addresses[kind]) as client:
        assert client.verticals == VERTICALS
        assert client.verticals == VERTICALS
    assert behaviour.requests == [1]
    assert local.verticals == VERTICALS


def test_a_model_without_head_gives_no_scores(exported):
    local = LocalModel(exported)
    with grpc_server(Behaviour(exported)) as address, Client(address) as client:
        remote = client.embed(IMAGES[:1])
        assert client.verticals == ()
    assert remote.vertical_scores is None
    assert local.embed(IMAGES[:1]).vertical_scores is None
    np.testing.assert_allclose(remote.embeddings, local.embed(IMAGES[:1]).embeddings, atol=1e-6)


@pytest.mark.parametrize("failures", [1, 2])
def test_requests_to_an_unavailable_server_are_retried(embed, kind, behaviour, failures):
    behaviour.failures = [{"grpc": CODE.UNAVAILABLE, "rest": 503}[kind]] * failures

    assert embed(IMAGES, attempts=3).valid.tolist() == VALID
    assert behaviour.requests == [6]


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_server_unavailable_after_all_attempts_is_an_error(embed, kind, behaviour, attempts):
    behaviour.failures = [{"grpc": CODE.UNAVAILABLE, "rest": 503}[kind]] * 9

    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:.*injected failure") as error:
        embed(IMAGES, attempts=attempts)
    assert isinstance(error.value, ServingError)
    assert "\n" not in str(error.value)
    assert len(behaviour.failures) == 9 - attempts
    assert not behaviour.requests


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        (CODE.INVALID_ARGUMENT, 400, RequestRefused),
        (CODE.NOT_FOUND, 404, ModelNotFound),
        (CODE.INTERNAL, 500, ServingError),
    ],
)
def test_other_failures_are_raised_at_once_by_kind(embed, kind, behaviour, code, status, expected):
    behaviour.failures = [{"grpc": code, "rest": status}[kind]]

    with pytest.raises(expected, match="injected failure") as error:
        embed(IMAGES)
    assert type(error.value) is expected
    assert not behaviour.failures


def test_the_deadline_is_kept(embed, behaviour):
    behaviour.failures = [5.0]

    with pytest.raises(DeadlineExceeded):
        embed(IMAGES, deadline=0.2)


def test_models_and_versions_are_requested_by_name(embed):
    assert embed(IMAGES, version=7).valid.tolist() == VALID
    with pytest.raises(ModelNotFound, match="Servable not found"):
        embed(IMAGES, version=6)
    with pytest.raises(ModelNotFound, match="Servable not found"):
        embed(IMAGES, model_name="another")


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_without_a_server_is_unavailable(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(address, ClientConfig(attempts=2)) as client,
            pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1"),
        ):
            client.embed(IMAGES)


@pytest.mark.parametrize("missing", ["embedding", "valid"])
def test_the_answer_of_another_model_is_an_error(embed, behaviour, missing):
    behaviour.rename = {missing: "else"}

    with pytest.raises(WrongAnswer, match=f"no '{missing}'"):
        embed(IMAGES)


def test_an_image_beyond_the_limits_does_not_affect_others(embed, local, exported_with_head):
    limits = ImageLimits(max_bytes=len(IMAGES[0]))
    large = encoded(drawn(400, 400))
    for found in (
        embed([large, IMAGES[0]], limits=limits),
        LocalModel(exported_with_head, limits=limits).embed([large, IMAGES[0]]),
    ):
        assert found.valid.tolist() == [False, True]
        np.testing.assert_allclose(
            found.embeddings[1], local.embed(IMAGES[:1]).embeddings[0], atol=1e-6
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 0),
        ("deadline", 0),
        ("attempts", 6),
        ("attempts", 0),
        ("batch_size", 0),
        ("batch_bytes", 0),
    ],
)
def test_an_invalid_configuration_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}; expected"):
        dataclasses.replace(ClientConfig(), **{name: value})


def test_a_directory_without_a_saved_model_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a SavedModel"):
        LocalModel(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        LocalModel(tmp_path)


WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow_serving",):
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Blocker())
from apparel_embed.common.errors import UserError
from apparel_embed.serving import Client, LocalModel

print(LocalModel(sys.argv[1]).embed([b"text"]).valid)
Client("http://localhost:8501").close()
try:
    Client("localhost:8500")
except UserError as error:
    print(error)
"""


def test_the_model_in_process_does_not_need_tensorflow_serving(exported):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(exported)], capture_output=True, text=True
    )
    lines = done.stdout.splitlines()

    assert lines[0] == "[False]", done.stderr
    assert "needs the package tensorflow-serving-api" in lines[1]


def test_an_image_rotated_by_exif_is_embedded_upright(local):
    image = drawn(60, 40, seed=11)
    turned = encoded(image.transpose(4), exif=exif(8))  # ROTATE_270, undone by 8.
    found = local.embed([encoded(image), turned])

    assert found.embeddings[0] @ found.embeddings[1] > 0.995
