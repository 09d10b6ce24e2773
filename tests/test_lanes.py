"""Files of one TensorFlow can be read with the other: 2.15 (Python 3.9 to 3.11) and 2.21 (later).

Needs a Python with this package's requirements for the other TensorFlow; its path is given in
APPAREL_EMBED_OTHER_PYTHON.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from search_images import some_images, unit_vectors
from serving_models import drawn, encoded
from tiny_run import STAGES, contents, log_of, start, wait_for, walk

import apparel_embed
from apparel_embed import LocalModel
from apparel_embed.data.prepared import load_prepared
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.search.build import build_index
from apparel_embed.search.index import Version, open_index

OTHER = os.environ.get("APPAREL_EMBED_OTHER_PYTHON")
ROOT = Path(apparel_embed.__file__).parent.parent
IMAGES = [encoded(drawn(40, 30)), encoded(drawn(33, 33, seed=1), "PNG"), b"not an image"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER, reason="APPAREL_EMBED_OTHER_PYTHON is not set"),
]


def run_other(script, *arguments):
    """Runs a script with the other Python and returns its last line, parsed as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    # Each TensorFlow has its own Keras.
    environment.pop("TF_USE_LEGACY_KERAS", None)
    command = [OTHER, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


WALK = """
import json, sys
from pathlib import Path
import tensorflow as tf
from tiny_run import walk

if __name__ == "__main__":
    walk(Path(sys.argv[1]))
    print(json.dumps(tf.__version__))
"""

EMBED = """
import json, sys
from pathlib import Path
import tensorflow as tf
from apparel_embed import LocalModel
from test_lanes import IMAGES, student_embeddings

run = Path(sys.argv[1])
embeddings, valid, _ = LocalModel(run / "saved_model/1").embed(IMAGES)
print(json.dumps({
    "tensorflow": tf.__version__,
    "served": embeddings.tolist(),
    "valid": valid.tolist(),
    "student": student_embeddings(run).tolist(),
}))
"""

SEARCH = """
import json, sys
from test_lanes import found_in

print(json.dumps(found_in(sys.argv[1])))
"""

ADD = """
import sys
from search_images import some_images, unit_vectors
from apparel_embed.search.index import open_index

with open_index(sys.argv[1]) as index:
    version = index.current()
    index.upsert(version, some_images(40)[30:], unit_vectors(40)[30:])
    index.finish(version)
print("null")
"""


def found_in(path):
    """Returns key and distance of ten hits for each of three queries of an index in a file."""
    with open_index(str(path), to_read=True) as index:
        version = index.current()
        return [
            [[hit.image.key, hit.distance] for hit in index.search(version, query, 10)]
            for query in unit_vectors(3, seed=1)
        ]


def student_embeddings(run_dir):
    """Returns the student's embeddings of the run's test images."""
    dataset = load_prepared(run_dir / "prepared")
    model, _ = load_embedding_model(run_dir / "student/model")
    embedder = Embedder(model)
    return embedder.records(dataset, dataset.select(split="test"))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("lanes") / "run"
    walk(run_dir)
    return run_dir


def test_weights_datasets_and_saved_models_give_the_same_embeddings(run_dir):
    other = run_other(EMBED, run_dir)
    assert other["tensorflow"] != tf.__version__
    embeddings, valid, _ = LocalModel(run_dir / "saved_model/1").embed(IMAGES)
    assert other["valid"] == valid.tolist() == [True, True, False]
    np.testing.assert_allclose(other["served"], embeddings, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other["student"], student_embeddings(run_dir), rtol=0, atol=1e-5)


def test_a_finished_run_is_also_finished_for_the_other_tensorflow(run_dir):
    before = contents(run_dir)
    run_other(WALK, run_dir)
    assert contents(run_dir) == before


def test_a_training_begun_with_one_tensorflow_is_resumed_with_the_other(run_dir, tmp_path):
    interrupted = tmp_path / "run"
    process = start(interrupted)
    wait_for(interrupted, "student", process, checkpoint=True)
    process.terminate()
    process.join()
    assert not (interrupted / "student").exists()
    run_other(WALK, interrupted)
    assert all((interrupted / stage).exists() for stage in STAGES)
    assert "unified: resuming from step" in log_of(interrupted).read_text()
    np.testing.assert_allclose(
        student_embeddings(interrupted), student_embeddings(run_dir), rtol=0, atol=1e-2
    )


def test_an_index_filled_with_one_tensorflow_can_be_searched_and_extended_with_the_other(tmp_path):
    path = tmp_path / "index.db"
    with open_index(str(path)) as index:
        build_index(index, Version("a" * 64, 8), iter([(some_images(30), unit_vectors(30))]))
    before = found_in(path)
    assert run_other(SEARCH, path) == before
    run_other(ADD, path)
    assert found_in(path) == run_other(SEARCH, path) != before
