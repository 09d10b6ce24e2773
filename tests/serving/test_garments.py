"""Every garment in a photograph, from the served graph and through its clients."""

import numpy as np
import pytest
import tensorflow as tf
from image_kinds import FOUR, KINDS, STORED, encode
from prediction_server import Behaviour, grpc_server, rest_server
from serving_models import (
    BROKEN,
    DIM,
    SIZE,
    VERTICALS,
    colour_detector,
    encoded,
    exif,
    photograph,
)

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings, prepare_image
from apparel_embed.serving import (
    Client,
    ClientConfig,
    LocalModel,
    RequestRefused,
    ServerUnavailable,
    WrongAnswer,
)
from apparel_embed.serving.garments import embed_garments

pytestmark = pytest.mark.slow

MOST = 10
# In pixels of a photograph of 200 x 150; the third one touches the edge.
BOXES = {0: (20, 30, 80, 120), 1: (100, 10, 190, 60), 2: (110, 80, 200, 150)}
STREET = encoded(photograph(BOXES), quality=98)
# The verticals by the detector's confidence.
ORDER = (0, 2, 1)
GOOD = [
    STREET,
    encoded(photograph({1: (5, 5, 90, 140)}, seed=1), "PNG"),
    encoded(photograph({}, seed=2)),
    encoded(photograph({0: (0, 0, 40, 40), 2: (60, 60, 100, 90)}, 120, 100, seed=3), "BMP"),
]
COUNTS = [3, 1, 0, 2]


@pytest.fixture(scope="module")
def local(exported_with_detector):
    return LocalModel(exported_with_detector)


def test_names_types_and_shapes_are_as_documented(street_signatures):
    assert set(street_signatures) == {"serving_default", "embed_images", "detect_and_embed"}
    signature = street_signatures["detect_and_embed"]
    (_, inputs) = signature.structured_input_signature
    assert inputs == {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")}
    outputs = signature.structured_outputs
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in outputs.items()} == {
        "boxes": (tf.float32, [None, MOST, 4]),
        "scores": (tf.float32, [None, MOST]),
        "found": (tf.bool, [None, MOST]),
        "vertical_index": (tf.int32, [None, MOST]),
        "vertical_name": (tf.string, [None, MOST]),
        "embedding": (tf.float32, [None, MOST, DIM]),
        "valid": (tf.bool, [None]),
    }


def test_each_garment_has_box_vertical_score_and_embedding(detect):
    found = detect(GOOD)

    assert found["valid"].all()
    assert found["found"].sum(axis=1).tolist() == COUNTS
    assert found["vertical_index"][0].tolist() == [*ORDER, *[-1] * (MOST - 3)]
    names = [name.decode() for name in found["vertical_name"][0]]
    assert names == [*(VERTICALS[place] for place in ORDER), *[""] * (MOST - 3)]
    # A pixel of the detector's square is more than one of the photograph.
    pixels = found["boxes"][0, :3] * [200, 150, 200, 150]
    np.testing.assert_allclose(pixels, [BOXES[place] for place in ORDER], atol=1.6)
    scores = 1 / (1 + np.exp([-4.0, -3.0, -2.0]))
    np.testing.assert_allclose(found["scores"][0, :3], scores, atol=1e-5)
    lengths = np.linalg.norm(found["embedding"], axis=2)
    np.testing.assert_allclose(lengths, found["found"], atol=1e-5)
    for name in ("boxes", "scores"):
        assert not found[name][~found["found"]].any()


@pytest.mark.parametrize("scale", [1, 8])
def test_a_garment_is_embedded_as_prepare_crops_it(detect, street_signatures, scale):
    """At eight times the size it is shrunk twice, and the JPEG is decoded at reduced size."""
    image = photograph(BOXES).resize((200 * scale, 150 * scale))
    if scale > 1:
        image = image.crop((0, 0, 1500, 600))
    data = encoded(image, quality=98)
    found = detect([data])
    boxes = found["boxes"][0][found["found"][0]] * [*image.size, *image.size]
    assert len(boxes) == (3 if scale == 1 else 2)
    cut = [prepare_image(data, ImageSettings(), tuple(box)).jpeg for box in boxes]
    expected = street_signatures["serving_default"](image_bytes=tf.constant(cut))[
        "embedding"
    ].numpy()

    cosines = np.sum(found["embedding"][0, : len(boxes)] * expected, axis=1)
    assert cosines.min() > 0.995
    # This is not by chance: other garments are further away.
    assert (expected @ expected[0])[1:].max() < 0.99


def test_results_are_identical_whatever_the_other_images_are(detect):
    alone = [detect([one]) for one in GOOD]
    together = detect([*GOOD[::-1], b"broken", *GOOD])

    for name, values in together.items():
        wanted = [one[name][0] for one in alone]
        np.testing.assert_array_equal(values[:4], wanted[::-1])
        np.testing.assert_array_equal(values[5:], wanted)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_has_no_garments_and_does_not_affect_others(detect, kind):
    whole = detect([STREET, *GOOD])
    found = detect([BROKEN[kind], *GOOD])

    assert found["valid"].tolist() == [False, *[True] * 4]
    assert not found["found"][0].any() and not found["embedding"][0].any()
    assert (found["vertical_index"][0] == -1).all()
    for name, values in found.items():
        np.testing.assert_array_equal(values[1:], whole[name][1:])


@pytest.mark.parametrize("images", [[], list(BROKEN.values())], ids=["none", "broken"])
def test_empty_and_broken_batches_have_no_garments(detect, images):
    found = detect(images)

    assert found["boxes"].shape == (len(images), MOST, 4)
    assert found["embedding"].shape == (len(images), MOST, DIM)
    assert not found["valid"].any() and not found["found"].any()


SHAPES = {
    "one pixel": (1, 1),
    "one pixel wide": (1, 2000),
    "one pixel high": (2000, 1),
    "long": (20_000, 30),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_of_any_shape_is_searched(detect, shape):
    width, height = SHAPES[shape]
    found = detect([encoded(photograph({2: (0, 0, width, height)}, width, height), "PNG")])

    assert found["valid"].tolist() == [True]
    assert found["vertical_index"][0, :2].tolist() == [2, -1]
    np.testing.assert_allclose(found["boxes"][0, 0], [0, 0, 1, 1], atol=1e-5)
    assert np.linalg.norm(found["embedding"][0, 0]) == pytest.approx(1, abs=1e-5)


def test_an_image_of_too_many_pixels_is_refused(detect):
    found = detect([encoded(photograph({}, 1200, 1000)), STREET])
    assert found["valid"].tolist() == [False, True]


def test_the_most_likely_garments_are_returned_if_there_are_too_many():
    signature = [tf.TensorSpec([None], tf.string)]

    def colours(crops):
        return tf.reduce_mean(tf.cast(crops, tf.float32), [1, 2])

    two = colour_detector(most=2, image_size=96)
    found = tf.function(
        lambda encoded: embed_garments(encoded, two, colours, SIZE, 3, 10**6), signature
    )(tf.constant([STREET]))

    assert found["vertical_index"].numpy().tolist() == [list(ORDER[:2])]
    assert found["found"].numpy().tolist() == [[True, True]]
    # Each crop shows its garment: mostly red, mostly blue.
    assert found["embedding"].numpy().argmax(axis=2).tolist() == [[0, 2]]


QUARTERS = {0: (0, 0, 0.5, 0.5), 1: (0.5, 0, 1, 0.5), 2: (0, 0.5, 0.5, 1)}


def assert_quarters_are_found(boxes, names, kind):
    of_name = dict(zip(names, boxes))
    assert set(of_name) == set(VERTICALS), kind
    for vertical, box in QUARTERS.items():
        np.testing.assert_allclose(of_name[VERTICALS[vertical]], box, atol=0.03, err_msg=kind)


def test_boxes_are_in_the_upright_image_for_every_kind_of_image(detect, local):
    found = detect([data for data, *_ in KINDS.values()])
    from_client = local.detect([data for data, *_ in KINDS.values()])

    for row, (kind, (_, colours, may_refuse)) in enumerate(KINDS.items()):
        is_found, valid = found["found"][row], found["valid"][row]
        assert valid or (may_refuse and not is_found.any()), kind
        # The client converts images that the graph refuses.
        assert from_client[row].valid, kind
        if colours == FOUR:
            assert_quarters_are_found(from_client[row].boxes, from_client[row].verticals, kind)
            if valid:
                names = [name.decode() for name in found["vertical_name"][row][is_found]]
                assert_quarters_are_found(found["boxes"][row][is_found], names, kind)
    grey = list(KINDS).index("grey JPEG")
    assert not found["found"][grey].any() and not len(from_client[grey].boxes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_rotated_by_exif_is_searched_upright(local, detect, orientation):
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    image = photograph(BOXES)
    stored = image if turn is None else image.transpose(turn)
    data = encoded(stored, exif=exif(orientation), quality=98)
    found = detect([data])["boxes"][0, :3] * [200, 150, 200, 150]
    np.testing.assert_allclose(found, [BOXES[place] for place in ORDER], atol=1.6)
    (from_client,) = local.detect([data])
    np.testing.assert_allclose(from_client.boxes, found / [200, 150, 200, 150], atol=0.02)


def test_an_image_in_another_orientation_has_other_boxes(detect):
    """So the test above can detect a wrong orientation."""
    found = detect([encode(STORED, "JPEG")])
    assert found["boxes"][0, 0].tolist() == pytest.approx([0, 0.5, 0.5, 1], abs=0.03)


def test_a_model_returns_only_garments_that_were_found(local):
    assert local.detects
    assert local.detect([]) == []
    found = local.detect([*GOOD, b"text", b"", encoded(photograph({}), "WEBP")])

    assert [len(one.boxes) for one in found] == [*COUNTS, 0, 0, 0]
    assert [one.valid for one in found] == [True] * 4 + [False, False, True]
    first = found[0]
    assert first.verticals == tuple(VERTICALS[place] for place in ORDER)
    assert (first.boxes.dtype, first.boxes.shape) == (np.float32, (3, 4))
    assert (first.scores.dtype, first.scores.shape) == (np.float32, (3,))
    assert (first.embeddings.dtype, first.embeddings.shape) == (np.float32, (3, DIM))
    assert (np.diff(first.scores) < 0).all()
    assert found[2].embeddings.shape == found[4].embeddings.shape == (0, DIM)


def test_the_error_about_a_missing_detector_says_how_to_get_one(exported):
    local = LocalModel(exported)
    assert not local.detects
    with pytest.raises(UserError, match=r"has no detector: export it .*--detector") as error:
        local.detect([STREET])
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def behaviour(exported_with_detector):
    return Behaviour(exported_with_detector)


@pytest.fixture(scope="module", params=[grpc_server, rest_server], ids=["grpc", "rest"])
def address(request, behaviour):
    with request.param(behaviour) as address:
        yield address


@pytest.fixture
def detect_remotely(address, behaviour):
    """A function that finds garments with a client of some configuration."""
    behaviour.reset()

    def detect_remotely(images, **config):
        with Client(address, ClientConfig(**config)) as client:
            return client.detect(images)

    return detect_remotely


def test_a_server_answers_like_the_model_in_process(detect_remotely, local, behaviour):
    images = [*GOOD, b"not an image", encoded(photograph(BOXES), "WEBP", lossless=True)]
    remote, here = detect_remotely(images, batch_size=4), local.detect(images)

    # The first request checks whether there is a detector.
    assert behaviour.requests == [1, 4, 2]
    assert [len(one.boxes) for one in remote] == [*COUNTS, 0, 3]
    for one, other in zip(remote, here):
        assert (one.verticals, one.valid) == (other.verticals, other.valid)
        for name in ("boxes", "scores", "embeddings"):
            values, wanted = getattr(one, name), getattr(other, name)
            assert (values.dtype, values.shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(values, wanted, atol=1e-6)
    assert detect_remotely([]) == []


@pytest.mark.parametrize("serve", [grpc_server, rest_server], ids=["grpc", "rest"])
def test_a_server_without_a_detector_is_recognized(serve, exported):
    with serve(Behaviour(exported)) as address, Client(address) as client:
        assert not client.detects
        with pytest.raises(UserError, match=r"has no detector: export it .*--detector"):
            client.detect([STREET])
        assert client.embed([STREET]).valid.all()


def test_a_failing_server_is_not_taken_for_one_without_a_detector(address, behaviour):
    import grpc

    behaviour.reset()
    is_rest = address.startswith("http")
    with Client(address, ClientConfig(attempts=1)) as client:
        behaviour.failures = [503 if is_rest else grpc.StatusCode.UNAVAILABLE]
        with pytest.raises(ServerUnavailable, match="injected failure"):
            client.detect([STREET])
        behaviour.failures = [400 if is_rest else grpc.StatusCode.INVALID_ARGUMENT]
        with pytest.raises(RequestRefused, match="injected failure"):
            client.detect([STREET])
        assert client.detects


@pytest.mark.parametrize("missing", ["boxes", "found", "vertical_name", "embedding", "valid"])
def test_an_answer_without_an_output_is_an_error(detect_remotely, behaviour, missing):
    behaviour.rename = {missing: "else"}
    with pytest.raises(WrongAnswer, match=f"the answer has no '{missing}'"):
        detect_remotely([STREET])


def test_an_answer_of_another_shape_is_an_error(detect_remotely, behaviour):
    behaviour.rename = {"boxes": "scores", "scores": "boxes"}
    with pytest.raises(WrongAnswer, match=r"'boxes' of shape \(1, 10\) for 1 images") as error:
        detect_remotely([STREET])
    assert "\n" not in str(error.value)
