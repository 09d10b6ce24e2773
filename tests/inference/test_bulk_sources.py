"""Lists of images to embed."""

import os

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.inference.bulk_sources import (
    SourceConfig,
    in_parts_of,
    list_directory,
    open_source,
)


def test_the_images_of_a_directory_are_listed_by_name(tmp_path):
    names = ["b/2.JPG", "b/10.jpeg", "a.png", "c.txt", ".hidden.jpg", ".cache/x.jpg", "b/c/d.webp"]
    names += ["e.HEIC", "f.hif", "heic"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (found,) = list_directory(str(tmp_path))
    assert found.to_pydict() == {
        "image": ["a.png", "b/10.jpeg", "b/2.JPG", "b/c/d.webp", "e.HEIC", "f.hif"]
    }


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(UserError, match="none: no such directory"):
        list(list_directory(str(tmp_path / "none")))


def test_fingerprints_change_with_the_list(tmp_path):
    def fingerprint(kind, location):
        return open_source(SourceConfig(kind, str(location), ImageSettings(), 9)).fingerprint()

    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(b"x")
    first = fingerprint("images", images)
    (images / "notes.txt").write_bytes(b"x")
    os.utime(images / "a.jpg", (0, 0))
    assert fingerprint("images", images) == first
    (images / "a.jpg").write_bytes(b"xy")
    assert fingerprint("images", images) != first
    found = []
    for name in ("a", "b", "a"):
        (tmp_path / "manifest.csv").write_text(f"image\n{name}.jpg\n")
        found.append(fingerprint("manifest", tmp_path / "manifest.csv"))
    assert found[0] == found[2] != found[1]
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert fingerprint("manifest", tmp_path / "manifest.csv") != found[0]


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 9))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_parts_have_the_same_rows_in_the_same_order(sizes, rows):
    numbers = iter(range(100))
    tables = [
        pa.table({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())})
        for size in sizes
    ]
    parts = list(in_parts_of(iter(tables), rows))
    assert [n for part in parts for n in part["n"].to_pylist()] == list(range(sum(sizes)))
    assert all(part.num_rows == rows for part in parts[:-1])
    assert not parts or 0 < parts[-1].num_rows <= rows
