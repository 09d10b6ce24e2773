"""Arbitrary bytes give a finite answer, and leave the other images' answers identical.

    APPAREL_EMBED_FUZZ_SECONDS=600 python -m pytest tests/serving/test_any_bytes.py

runs for this time with new examples. By default, a few hundred fixed examples are tried.
"""

import os
import random
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from serving_models import DIM, drawn, encoded, exif, photograph

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("APPAREL_EMBED_FUZZ_SECONDS", "0"))
WHOLE = [
    encoded(photograph({1: (2, 2, 20, 28)}, 40, 30)),
    encoded(photograph({0: (0, 0, 9, 12), 1: (8, 3, 16, 20)}, 16, 20), "PNG"),
    encoded(drawn(40, 30), exif=exif(6)),
    encoded(drawn(40, 30), progressive=True),
    encoded(drawn(20, 16).convert("CMYK")),
    encoded(drawn(20, 16), "PNG", exif=exif(3)),
    encoded(drawn(20, 16).convert("RGBA"), "PNG"),
    encoded(drawn(20, 16).quantize(4), "PNG", bits=2, transparency=1),
    encoded(drawn(20, 16).quantize(8), "GIF", transparency=2),
    encoded(
        drawn(20, 16).quantize(8),
        "GIF",
        save_all=True,
        append_images=[drawn(20, 16, seed=1).quantize(8)],
    ),
    encoded(drawn(9, 7), "BMP"),
    encoded(drawn(9, 7).quantize(16), "BMP"),
    encoded(drawn(9, 7).convert("RGBA"), "BMP"),
]
NEIGHBOURS = [encoded(drawn(50, 40, seed=7)), encoded(drawn(30, 45, seed=8), "PNG")]
STREET = encoded(photograph({0: (5, 5, 40, 60), 2: (50, 30, 100, 80)}, 120, 90))


@st.composite
def damaged(draw):
    """An image with bytes changed, cut off, inserted or repeated."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    # Most bytes that decoders fail on are at the start.
    places = st.one_of(st.integers(0, 64), st.integers(0, len(data)))
    for _ in range(draw(st.integers(1, 6))):
        place, kind = min(draw(places), len(data)), draw(st.integers(0, 4))
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == 2:
            data[place : place + 4] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
            )
        elif kind == 3:
            data[place:place] = draw(st.binary(max_size=40))
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
    return bytes(data)


ANY = st.one_of(damaged(), st.binary(max_size=300), st.sampled_from(WHOLE))


@pytest.fixture(scope="module")
def embed(signatures):
    def embed(images):
        found = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
        return found["embedding"].numpy(), found["valid"].numpy()

    return embed


@pytest.fixture(scope="module")
def alone(embed):
    """The embeddings of NEIGHBOURS in a batch of the same size without other images."""
    embeddings, _ = embed([NEIGHBOURS[0], *[b""] * 8, NEIGHBOURS[1]])
    return embeddings[[0, -1]]


def check(embed, alone, images):
    images = [NEIGHBOURS[0], *images, NEIGHBOURS[1]]
    embeddings, valid = embed(images)

    assert embeddings.shape == (10, DIM)
    np.testing.assert_array_equal(embeddings[[0, -1]], alone)
    assert valid[[0, -1]].all()
    assert np.isfinite(embeddings).all()
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), valid, atol=1e-5)
    # A single image is decoded by other code, with the same result.
    for number, one in enumerate(images):
        (embedding,), (is_valid,) = embed([one])
        assert is_valid == valid[number]
        np.testing.assert_allclose(embedding, embeddings[number], atol=1e-5)


def check_garments(detect, images):
    """The answer is identical whether an image is alone or not."""
    together = detect([STREET, *images])

    assert together["found"][0].any()
    assert np.isfinite(together["embedding"]).all() and np.isfinite(together["boxes"]).all()
    assert (together["boxes"] >= 0).all() and (together["boxes"] <= 1).all()
    lengths = np.linalg.norm(together["embedding"], axis=2)
    np.testing.assert_allclose(lengths, together["found"], atol=1e-5)
    for number, one in enumerate([STREET, *images]):
        for name, values in detect([one]).items():
            np.testing.assert_array_equal(values[0], together[name][number])


BATCHES = st.lists(ANY, min_size=8, max_size=8)
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@seed(0)
@settings(max_examples=100, derandomize=True, **QUIET)
@given(images=BATCHES)
def test_any_bytes_are_answered_without_affecting_other_images(embed, alone, images):
    check(embed, alone, images)


@seed(0)
@settings(max_examples=25, derandomize=True, **QUIET)
@given(images=BATCHES)
def test_any_bytes_are_searched_for_garments_without_affecting_other_images(detect, images):
    check_garments(detect, images)


@pytest.mark.skipif(not SECONDS, reason="APPAREL_EMBED_FUZZ_SECONDS is not set")
def test_any_bytes_for_the_requested_duration(embed, alone, detect):
    end, tried = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:

        @seed(random.randrange(2**32))
        @settings(max_examples=200, **QUIET)
        @given(images=BATCHES)
        def batch(images):
            nonlocal tried
            tried += 8
            if time.monotonic() < end:
                check(embed, alone, images)
                check_garments(detect, images)

        batch()
    print(f"{tried} images tried in {SECONDS:g} s")
