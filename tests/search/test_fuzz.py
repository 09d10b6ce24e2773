"""Uploads of arbitrary bytes, names and parameters are refused or answered without a failure."""

from __future__ import annotations

import io
import os
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.slow

ALLOWED = {200, 400, 404, 413, 415, 422}
ROUTES = st.sampled_from(["/api/search", "/api/detect", "/api/search_garments"])


def _seed(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


SEEDS = [_seed(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")]


@st.composite
def damaged_images(draw) -> bytes:
    """An image with some changed bytes, truncated or followed by further bytes."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8)
    ):
        # Changes of the header have the most effect.
        data[(place % 128 if value % 2 else place) % len(data)] = value
    return bytes(data[: draw(st.integers(0, 2 * len(data)))]) + draw(st.binary(max_size=8))


@pytest.fixture(scope="module")
def client(detecting):
    with TestClient(detecting(max_pixels=100_000), raise_server_exceptions=False) as opened:
        yield opened


# A long run with new examples each time: FUZZ_EXAMPLES=20000 pytest tests/search/test_fuzz.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
LIGHT = settings(
    max_examples=EXAMPLES or 60,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@LIGHT
@given(
    image=st.one_of(damaged_images(), st.binary(max_size=200)),
    name=st.text(max_size=20),
    box=st.one_of(st.just(""), st.text("0123456789.,-e nan", max_size=20), st.text(max_size=10)),
    vertical=st.one_of(st.just(""), st.sampled_from(["bag", "dress"]), st.text(max_size=10)),
    k=st.one_of(st.integers(-2, 200).map(str), st.text(max_size=5)),
    route=ROUTES,
)
def test_no_upload_makes_the_service_fail(client, image, name, box, vertical, k, route):
    answer = client.post(
        route,
        files={"file": (name or "a", image, "image/jpeg")},
        data={"box": box, "vertical": vertical, "k": k},
    )

    assert answer.status_code in ALLOWED
    assert answer.status_code == 200 or isinstance(answer.json()["detail"], str)


@LIGHT
@given(
    body=st.binary(max_size=300),
    kind=st.one_of(
        st.just("multipart/form-data; boundary=x"),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    ),
    framed=st.booleans(),
    route=ROUTES,
)
def test_no_body_makes_the_service_fail(client, body, kind, framed, route):
    if framed:
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + body
    answer = client.post(route, content=body, headers={"Content-Type": kind})

    assert answer.status_code in ALLOWED


@LIGHT
@given(path=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=40))
def test_no_path_makes_the_service_fail(client, path):
    for prefix in ("/images/", "/examples/", "/"):
        answer = client.get(prefix + quote(path, safe="/.%"))
        assert answer.status_code in ALLOWED | {405}
    assert client.get("/api/similar", params={"key": path}).status_code == 422
