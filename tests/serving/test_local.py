import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    save_embedding_model,
)
from apparel_embed.serving.local import find_model, load_image_embedder, model_fingerprint
from apparel_embed.serving.saved_model import export_saved_model

pytestmark = pytest.mark.slow

SIZE, DIM = 24, 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one model, as a stage and exported in two versions."""
    directory = tmp_path_factory.mktemp("run")
    tf.keras.utils.set_random_seed(3)
    config = ModelConfig(image_size=SIZE, embedding_dim=DIM)
    model = build_embedding_model(config)
    save_embedding_model(directory / "student" / "model", model, config)
    export_saved_model(model, directory / "saved_model" / "9")
    export_saved_model(model, directory / "saved_model" / "10")
    return directory


def images(count):
    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (30, 20, 3), np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


@pytest.mark.parametrize(
    ("location", "directory"),
    [
        ("student", "student/model"),
        ("student/", "student/model"),
        ("student/model", "student/model"),
        ("saved_model", "saved_model/10"),
        ("saved_model/9", "saved_model/9"),
    ],
)
def test_a_model_is_found_by_any_of_its_directories(run, location, directory):
    assert find_model(f"{run}/{location}") == f"{run}/{directory}"


def test_a_stage_and_its_export_give_identical_embeddings(run):
    files = [*images(5), b"not an image"]
    embed = load_image_embedder(f"{run}/student")
    exported = load_image_embedder(f"{run}/saved_model")
    assert embed.dim == exported.dim == DIM
    one, other = embed(files), exported(files)
    assert one.embeddings.shape == (6, DIM) and one.embeddings.dtype == np.float32
    np.testing.assert_array_equal(one.embeddings, other.embeddings)
    np.testing.assert_array_equal(one.images, np.arange(6))
    assert one.valid.tolist() == other.valid.tolist() == [True] * 5 + [False]
    np.testing.assert_allclose(np.linalg.norm(one.embeddings[:5], axis=1), 1, rtol=1e-6)


def test_the_fingerprint_depends_on_the_files_and_not_their_location(run, tmp_path):
    first = model_fingerprint(f"{run}/student")
    shutil.copytree(run / "student", tmp_path / "moved")
    assert model_fingerprint(str(tmp_path / "moved")) == first
    config = json.loads((tmp_path / "moved/model/model.json").read_text())
    (tmp_path / "moved/model/model.json").write_text(json.dumps({**config, "image_size": 32}))
    assert model_fingerprint(str(tmp_path / "moved")) != first


def test_a_directory_without_a_model_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--model=.*none: no such directory"):
        find_model(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no model found; expected a SavedModel .* or a stage of"):
        find_model(str(tmp_path))
    (tmp_path / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(UserError, match="the SavedModel cannot be read"):
        load_image_embedder(str(tmp_path))


def test_a_saved_model_with_other_inputs_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"serving_default": module.f})
    with pytest.raises(UserError, match="'serving_default' does not map `image_bytes` to `embe"):
        load_image_embedder(str(tmp_path / "other"))
