import os
import sqlite3
import stat
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from search_images import some_images, unit_vectors

from apparel_embed.common.errors import UserError
from apparel_embed.search.build import build_index
from apparel_embed.search.index import IndexSettings, Version, open_index

A, DIM = "a" * 64, 8


@pytest.fixture
def path(tmp_path):
    """The file of an index of 30 images, in a directory with an odd name."""
    (tmp_path / "what?  this %20 #").mkdir()
    path = tmp_path / "what?  this %20 #" / "ü.db"
    with open_index(str(path)) as index:
        build_index(index, Version(A, DIM), iter([(some_images(30), unit_vectors(30))]))
    return path


def test_a_second_process_can_read_but_not_write(path):
    script = (
        "import sys; from apparel_embed.search.index import open_index\n"
        "path = sys.argv[1]\n"
        "with open_index(path, to_read=True) as index: print(index.version('a' * 64).images)\n"
        "try: open_index(path).__enter__()\n"
        "except ValueError as error: print(error)"
    )
    with open_index(str(path)):
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True
        )
    read, written = done.stdout.splitlines()[-2:]
    assert read == "30"
    assert f"{path}" in written and str(os.getpid()) in written
    assert "Traceback" not in done.stderr
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name]


def test_a_read_only_file_can_be_searched(path):
    path.chmod(stat.S_IRUSR)
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with open_index(str(path), to_read=True) as index:
        assert len(index.search(index.current(), unit_vectors(1)[0], 99, by_item=False)) == 30
    path.parent.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT"])
def test_a_file_uses_flat_instead_of_other_kinds_and_warns(tmp_path, caplog, kind):
    version = Version(A, DIM, settings=IndexSettings(kind))
    with open_index(str(tmp_path / "index.db")) as index:
        rows = iter([(some_images(30), unit_vectors(30))])
        kept = build_index(index, version, rows).version
        assert len(index.search(kept, unit_vectors(1)[0], 10)) == 10
        assert index.current().settings.kind == kept.settings.kind == "FLAT"
        build_index(index, Version(A, DIM), iter([(some_images(2), unit_vectors(2))]))
    assert f"cannot be {kind}; FLAT is used" in caplog.text


def test_a_version_has_one_embedding_length(path):
    with open_index(str(path)) as index, pytest.raises(UserError, match=r"length 8 .*, not 9"):
        index.begin(Version(A, 9))


@pytest.mark.parametrize("to_read", [False, True])
def test_a_file_that_is_not_an_index_is_an_error_and_left_alone(tmp_path, to_read):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE versions (model)")
    text = tmp_path / "text.db"
    text.write_text("not an index, but as long as one" * 100)
    for path, message in (
        (other, r"other\.db: not an index file, or one of an earlier release"),
        (text, r"text\.db: cannot be used as an index \(file is not a database\)"),
        (tmp_path, r"cannot be used as an index \(unable to open database file\)"),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(UserError, match=message), open_index(str(path), to_read=to_read):
            pass
        assert before is None or path.read_bytes() == before


def test_opening_a_missing_file_for_reading_does_not_create_it(tmp_path):
    missing = tmp_path / "index.db"
    with pytest.raises(UserError, match="unable to open"), open_index(str(missing), to_read=True):
        pass
    assert not missing.exists()


def test_embeddings_of_nearly_unit_length_are_ranked_by_distance(tmp_path):
    vectors = unit_vectors(400, seed=3)
    lengths = 1 + 9e-4 * np.sign(np.random.default_rng(0).normal(size=(400, 1)))
    vectors = (vectors * lengths).astype(np.float32)
    with open_index(str(tmp_path / "index.db")) as index:
        version = build_index(index, Version(A, DIM), iter([(some_images(400), vectors)])).version
        for query in unit_vectors(20, seed=4):
            hits = index.search(version, query, 50, by_item=False)
            far = np.linalg.norm(vectors.astype(np.float64) - query, axis=1)
            assert [int(hit.image.key, 16) for hit in hits] == np.argsort(far)[:50].tolist()
            np.testing.assert_allclose([hit.distance for hit in hits], np.sort(far)[:50], 1e-5)


def test_memory_of_versions_no_longer_searched_is_released(tmp_path):
    vectors = unit_vectors(1000, 256)
    with open_index(str(tmp_path / "index.db")) as index:
        rows = [(some_images(1000), vectors)]
        versions = [
            build_index(index, Version(letter * 64, 256), iter(rows)).version for letter in "abcdef"
        ]
        tracemalloc.start()
        for version in versions:
            index.search(version, vectors[0], 1)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 3 * vectors.nbytes
