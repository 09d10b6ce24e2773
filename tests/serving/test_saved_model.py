import base64
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from serving_models import BROKEN, DIM, SIZE, VERTICALS, drawn
from serving_models import encoded as encode
from tensorflow_serving.apis import prediction_log_pb2

from apparel_embed.common.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.models.vertical_head import feature_model
from apparel_embed.serving.exported import read_verticals, saved_model_versions
from apparel_embed.serving.saved_model import ExportConfig, export_saved_model


def encoded(height, width, kind="JPEG", seed=0, mode="RGB"):
    return encode(drawn(width, height, seed, mode), kind)


GOOD = [
    encoded(40, 25, seed=1),
    encoded(32, 32, "PNG", seed=2),
    encoded(10, 80, "BMP", seed=3),
    encoded(50, 50, "GIF", seed=4),
    encoded(1, 90, "PNG", seed=5),
    encoded(30, 20, "JPEG", seed=6, mode="L"),
]


def embed(signatures, images):
    result = signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
    return result["embedding"].numpy(), result["valid"].numpy()


def expected(model, images):
    return Embedder(model)([decode_to_square(one, SIZE)[tf.newaxis] for one in images])


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
images = [base64.b64decode(one) for one in request["images"]]
result = serve(image_bytes=tf.constant(images, tf.string))
assert "apparel_embed" not in sys.modules
answer = {name: value.numpy().tolist() for name, value in result.items()}
print("result:" + json.dumps(answer))
"""


@pytest.mark.slow
def test_a_process_without_this_package_gets_the_same_embeddings(model, exported, tmp_path):
    images = [GOOD[0], BROKEN["text"], *GOOD[1:]]
    request = {
        "directory": str(exported),
        "images": [base64.b64encode(one).decode() for one in images],
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


def test_names_types_and_shapes_are_as_documented(signatures):
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


def test_images_of_different_sizes_and_formats_share_a_batch(model, signatures):
    embeddings, valid = embed(signatures, GOOD)
    assert valid.all()
    np.testing.assert_allclose(embeddings, expected(model, GOOD), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("index", range(len(GOOD)))
def test_a_single_image(model, signatures, index):
    embeddings, valid = embed(signatures, GOOD[index : index + 1])
    assert valid.tolist() == [True]
    np.testing.assert_allclose(embeddings, expected(model, GOOD[index : index + 1]), atol=1e-5)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_broken_image_gives_zeros_and_does_not_affect_others(signatures, kind, place):
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
    images = [GOOD[i % len(GOOD)] if i % 5 else b"broken" for i in range(70)]
    embeddings, valid = embed(signatures, images)
    single = expected(model, GOOD)
    for index in range(70):
        assert valid[index] == bool(index % 5)
        target = single[index % len(GOOD)] if index % 5 else np.zeros(DIM)
        np.testing.assert_allclose(embeddings[index], target, atol=1e-5)


def test_only_broken_images(signatures):
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
def test_decoded_images_give_the_same_embedding_as_their_bytes(signatures, index):
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


def test_files_of_an_interrupted_export_do_not_get_into_the_next(model, tmp_path):
    (tmp_path / "2.partial" / "variables").mkdir(parents=True)
    (tmp_path / "2.partial" / "variables" / "stale").write_text("old")
    export_saved_model(model, tmp_path / "2", ExportConfig(warm_up=False))
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    assert not (tmp_path / "2" / "variables" / "stale").exists()
    assert (tmp_path / "2" / "saved_model.pb").is_file()
    assert not (tmp_path / "2" / "assets.extra").exists()


@pytest.mark.parametrize("max_pixels", [0, 100_000_001])
def test_an_invalid_limit_is_refused(model, tmp_path, max_pixels):
    with pytest.raises(UserError, match="expected 1 to 100000000"):
        export_saved_model(model, tmp_path / "1", ExportConfig(max_pixels=max_pixels))
    assert not (tmp_path / "1").exists()


def test_a_vertical_head_adds_scores_without_changing_embeddings(
    model, head, signatures, exported_with_head
):
    images = [GOOD[0], BROKEN["text"], *GOOD[1:]]
    served = tf.saved_model.load(str(exported_with_head)).signatures["serving_default"]
    found = served(image_bytes=tf.constant(images))
    without, valid = embed(signatures, images)

    assert served.structured_outputs["vertical"].shape.as_list() == [None, len(VERTICALS)]
    np.testing.assert_array_equal(found["embedding"], without)
    np.testing.assert_array_equal(found["valid"], valid)
    assert (found["vertical"][1].numpy() == 0).all()
    scores = np.delete(found["vertical"].numpy(), 1, axis=0)
    squares = tf.stack([decode_to_square(one, SIZE) for one in GOOD])
    features = feature_model(model)(tf.cast(squares, tf.float32)).numpy()
    expected = tf.nn.softmax(features @ head.weights + head.bias).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
    names = [[name.decode() for name in row] for row in found["vertical_name"].numpy()]
    assert names == [list(VERTICALS)] * len(images)


def test_verticals_and_the_model_card_are_assets(exported, exported_with_head):
    assert read_verticals(exported_with_head) == VERTICALS
    assert (exported_with_head / "assets/model_card.md").read_text("utf-8") == "# A card\n"
    assert read_verticals(exported) == ()


def test_concurrent_calls_get_their_own_answers(signatures):
    wholes = [embed(signatures, GOOD[i:] + GOOD[:i])[0] for i in range(len(GOOD))]

    def call(turn):
        images = GOOD[turn:] + GOOD[:turn]
        images[turn] = BROKEN["truncated JPEG"]
        return turn, *embed(signatures, images)

    with ThreadPoolExecutor(8) as pool:
        for turn, embeddings, valid in pool.map(call, list(range(len(GOOD))) * 8):
            assert valid.tolist() == [place != turn for place in range(len(GOOD))]
            expected = wholes[turn].copy()
            expected[turn] = 0
            np.testing.assert_array_equal(embeddings, expected)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_the_signatures(signatures, exported_with_head, tmp_path):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    where = ["--dir", str(exported_with_head), "--tag_set", "serve"]
    signature = ["--signature_def", "serving_default"]
    np.save(tmp_path / "images.npy", np.array([GOOD[0], b"text"]))
    inputs = ["--inputs", f"image_bytes={tmp_path / 'images.npy'}"]
    lines = [
        [*command, "show", *where, *signature],
        [*command, "run", *where, *signature, "--outdir", str(tmp_path), *inputs],
    ]
    shown, ran = (subprocess.run(line, capture_output=True, text=True) for line in lines)

    assert "inputs['image_bytes'] tensor_info" in shown.stdout
    assert "dtype: DT_STRING\n      shape: (-1)" in shown.stdout
    assert (
        f"outputs['embedding'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, {DIM})"
        in (shown.stdout)
    )
    assert ran.returncode == 0, ran.stderr
    assert np.load(tmp_path / "valid.npy").tolist() == [True, False]
    np.testing.assert_allclose(
        np.load(tmp_path / "embedding.npy"), embed(signatures, [GOOD[0], b"text"])[0], atol=1e-6
    )


def test_warm_up_requests_are_those_of_tensorflow_serving(exported, signatures):
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    sizes = []
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        images = tf.make_ndarray(request.inputs["image_bytes"])
        sizes.append(len(images))
        assert embed(signatures, list(images))[1].all()
    assert sizes == [1, 2, 4, 8, 16, 32]


def test_versions_are_sorted_by_number_ignoring_other_directories(tmp_path):
    for name in ("10", "9", "007", "1.partial", "kit"):
        (tmp_path / name).mkdir()
    assert [path.name for path in saved_model_versions(tmp_path)] == ["007", "9", "10"]


def test_a_missing_directory_has_no_versions(tmp_path):
    assert saved_model_versions(tmp_path / "nowhere") == []
    (tmp_path / "file").touch()
    assert saved_model_versions(tmp_path / "file") == []
