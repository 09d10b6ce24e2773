import base64
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.serving.saved_model import export_saved_model

SIZE, DIM = 32, 8


def encoded(height, width, kind="JPEG", seed=0, mode="RGB"):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.BICUBIC).convert(mode).save(file, kind)
    return file.getvalue()


GOOD = [
    encoded(40, 25, seed=1),
    encoded(32, 32, "PNG", seed=2),
    encoded(10, 80, "BMP", seed=3),
    encoded(50, 50, "GIF", seed=4),
    encoded(1, 90, "PNG", seed=5),
    encoded(30, 20, "JPEG", seed=6, mode="L"),
]
BROKEN = {
    "truncated JPEG": encoded(60, 60, seed=7)[:-200],
    "truncated PNG": encoded(60, 60, "PNG", seed=7)[:-200],
    "text": b"this is no picture",
    "nothing": b"",
    "header only": b"\xff\xd8\xff\xe0",
    "huge PNG": GOOD[1][:16] + (2**31 - 1).to_bytes(4, "big") * 2 + GOOD[1][24:],
    "WebP": encoded(20, 20, "WEBP"),
}


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(1)
    model = build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=DIM, pooling="gem"))
    # Moving statistics that are not the initial ones.
    model(tf.random.stateless_uniform([8, SIZE, SIZE, 3], [1, 2], 0, 255), training=True)
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "1"
    export_saved_model(model, directory)
    return directory


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def embed(signatures, pictures):
    result = signatures["serving_default"](image_bytes=tf.constant(pictures, tf.string))
    return result["embedding"].numpy(), result["valid"].numpy()


def expected(model, pictures):
    return Embedder(model)([decode_to_square(one, SIZE)[tf.newaxis] for one in pictures])


SCRIPT = """
import base64, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("apparel_embed", "keras_cv", "tensorflow_addons"):
            raise ImportError(name + " is not installed here")

sys.meta_path.insert(0, Blocker())
import tensorflow as tf

request = json.load(sys.stdin)
serve = tf.saved_model.load(request["directory"]).signatures["serving_default"]
pictures = [base64.b64decode(one) for one in request["pictures"]]
result = serve(image_bytes=tf.constant(pictures, tf.string))
assert "apparel_embed" not in sys.modules
answer = {name: value.numpy().tolist() for name, value in result.items()}
print("result:" + json.dumps(answer))
"""


def test_a_process_without_this_package_gets_the_same_embeddings(model, exported, tmp_path):
    pictures = [GOOD[0], BROKEN["text"], *GOOD[1:]]
    request = {
        "directory": str(exported),
        "pictures": [base64.b64encode(one).decode() for one in pictures],
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(request),
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.split("result:")[1])
    assert answer["valid"] == [True, False, *[True] * (len(GOOD) - 1)]
    embeddings = np.delete(np.array(answer["embedding"]), 1, axis=0)
    np.testing.assert_allclose(embeddings, expected(model, GOOD), atol=1e-5)


def test_names_types_and_shapes_are_as_promised(signatures):
    assert set(signatures) == {"serving_default", "embed_images"}
    bytes_signature, image_signature = signatures["serving_default"], signatures["embed_images"]
    (_, inputs) = bytes_signature.structured_input_signature
    assert inputs == {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")}
    outputs = bytes_signature.structured_outputs
    assert {name: spec.dtype for name, spec in outputs.items()} == {
        "embedding": tf.float32,
        "valid": tf.bool,
    }
    assert outputs["embedding"].shape.as_list() == [None, DIM]
    assert outputs["valid"].shape.as_list() == [None]
    (_, inputs) = image_signature.structured_input_signature
    assert inputs == {"images": tf.TensorSpec([None, None, None, 3], tf.uint8, "images")}
    (output,) = image_signature.structured_outputs.items()
    assert (output[0], output[1].dtype) == ("embedding", tf.float32)


def test_pictures_of_different_sizes_and_formats_share_a_batch(model, signatures):
    embeddings, valid = embed(signatures, GOOD)
    assert valid.all()
    np.testing.assert_allclose(embeddings, expected(model, GOOD), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("index", range(len(GOOD)))
def test_a_single_picture(model, signatures, index):
    embeddings, valid = embed(signatures, GOOD[index : index + 1])
    assert valid.tolist() == [True]
    np.testing.assert_allclose(embeddings, expected(model, GOOD[index : index + 1]), atol=1e-5)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_broken_picture_gives_zeros_and_harms_no_neighbour(signatures, kind, place):
    whole, _ = embed(signatures, GOOD)
    mixed = list(GOOD)
    mixed[place] = BROKEN[kind]
    embeddings, valid = embed(signatures, mixed)
    assert valid.tolist() == [index != place for index in range(len(GOOD))]
    assert (embeddings[place] == 0).all()
    np.testing.assert_array_equal(
        np.delete(embeddings, place, axis=0), np.delete(whole, place, axis=0)
    )


def test_order_is_kept_in_a_batch_larger_than_the_cycle(model, signatures):
    pictures = [GOOD[i % len(GOOD)] if i % 5 else b"broken" for i in range(70)]
    embeddings, valid = embed(signatures, pictures)
    single = expected(model, GOOD)
    for index in range(70):
        assert valid[index] == bool(index % 5)
        target = single[index % len(GOOD)] if index % 5 else np.zeros(DIM)
        np.testing.assert_allclose(embeddings[index], target, atol=1e-5)


def test_only_broken_pictures(signatures):
    embeddings, valid = embed(signatures, list(BROKEN.values()))
    assert not valid.any()
    np.testing.assert_array_equal(embeddings, np.zeros([len(BROKEN), DIM]))


def test_an_empty_request_gives_an_empty_result(signatures):
    embeddings, valid = embed(signatures, [])
    assert embeddings.shape == (0, DIM)
    assert valid.shape == (0,)
    images = tf.zeros([0, 40, 30, 3], tf.uint8)
    assert signatures["embed_images"](images=images)["embedding"].shape == (0, DIM)


@pytest.mark.parametrize("index", [1, 2, 4])
def test_decoded_pictures_give_the_same_embedding_as_their_bytes(signatures, index):
    pixels = tf.io.decode_image(GOOD[index], channels=3, expand_animations=False)
    images = tf.stack([pixels, 255 - pixels])
    result = signatures["embed_images"](images=images)["embedding"].numpy()
    assert result.shape == (2, DIM)
    np.testing.assert_allclose(result[0], embed(signatures, [GOOD[index]])[0][0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-5)


def test_an_existing_directory_is_refused_and_left_alone(model, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "kept").write_text("mine")
    with pytest.raises(UserError, match="exists; name another directory") as error:
        export_saved_model(model, tmp_path / "1")
    assert str(tmp_path / "1") in str(error.value)
    assert (tmp_path / "1" / "kept").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_what_an_interrupted_export_left_does_not_get_into_the_next(model, tmp_path):
    (tmp_path / "2.partial" / "variables").mkdir(parents=True)
    (tmp_path / "2.partial" / "variables" / "stale").write_text("old")
    export_saved_model(model, tmp_path / "2")
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    assert not (tmp_path / "2" / "variables" / "stale").exists()
    assert (tmp_path / "2" / "saved_model.pb").is_file()
