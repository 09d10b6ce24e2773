import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data import picture_list
from apparel_embed.data.picture_list import (
    box_of,
    fingerprint_directory,
    fingerprint_manifest,
    in_parts_of,
    list_directory,
    list_manifest,
)


def read(path, reserved=()):
    return pa.concat_tables(list_manifest(str(path), reserved)).to_pydict()


def write(tmp_path, *lines):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_manifest_needs_no_more_than_images_and_all_its_columns_are_kept_as_texts(tmp_path):
    path = write(tmp_path, "\ufeffimage,sku,note", "a.jpg,007,", '"b, c.jpg",1,"two\nlines"')
    assert read(path) == {
        "image": ["a.jpg", "b, c.jpg"], "sku": ["007", "1"], "note": ["", "two\nlines"],
    }  # fmt: skip


def test_a_parquet_manifest_reads_as_a_csv_does(tmp_path):
    columns = {"image": ["a.jpg", "b.jpg"], "sku": [7, None], "x_min": [None, 1.5],
               "y_min": [None, 0.0], "x_max": [None, 4.0], "y_max": [None, 5.0]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    found = read(tmp_path / "m.parquet")
    assert found["sku"] == ["7", ""]
    boxes = [
        box_of(texts) for texts in zip(*(found[n] for n in ("x_min", "y_min", "x_max", "y_max")))
    ]
    assert boxes == [None, (1.5, 0.0, 4.0, 5.0)]


def test_ids_of_parquet_read_as_those_of_any_manifest_and_rows_are_counted_over_parts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(picture_list, "_ROWS_AT_ONCE", 2)
    ids = [4006381333930.0, float("nan"), 7.0, 7.5]
    table = pa.table({"image": list("abcd"), "item_id": ids})
    pq.write_table(table.slice(0, 3), tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet")["item_id"] == ["4006381333930", "", "7"]
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(UserError, match=r"m.parquet: row 4: column 'item_id': 7.5; a text or a"):
        read(tmp_path / "m.parquet")


def test_a_manifest_is_read_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_list, "_BYTES_AT_ONCE", 200)
    path = write(tmp_path, "image", *(f"{number:05}.jpg" for number in range(500)))
    parts = list(list_manifest(str(path)))
    assert len(parts) > 5
    assert pa.concat_tables(parts)["image"].to_pylist() == [f"{n:05}.jpg" for n in range(500)]
    path.write_text(path.read_text() + "\n" + " \n", "utf-8")
    with pytest.raises(UserError, match="row 501: column 'image' is empty"):
        read(path)


BOX = "image,x_min,y_min,x_max,y_max"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sku", "1"], "no column 'image'; found: sku"),
        (["image,image", "a,b"], "column 'image' is there twice"),
        (["image,embedding", "a,b"], "column 'embedding' has a reserved name"),
        (["image,x_min", "a,1"], "a box needs all of x_min, y_min, x_max, y_max"),
        ([BOX, "a,,,,", "b,1,2,3,"], "row 2: box .*allowed are four finite numbers"),
        ([BOX, "a,1,2,3,x"], "row 1: box"),
        ([BOX, "a,3,0,3,1"], "row 1: box"),
        ([BOX, "a,-inf,0,3,1"], "row 1: box"),
        ([BOX, "a,nan,0,3,1"], "row 1: box"),
        (["image,sku", "a,1", "b"], "cannot be read as a manifest: .*[Ee]xpected 2 columns"),
    ],
)
def test_a_wrong_manifest_is_told_by_file_row_and_column(tmp_path, lines, message):
    with pytest.raises(UserError, match=f"manifest.csv: {message}"):
        read(write(tmp_path, *lines), reserved=("embedding",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such manifest"),
        ("latin.csv", "image\nü.jpg\n".encode("latin-1"), "cannot be read"),
        ("text.parquet", b"image\na.jpg\n", "cannot be read"),
        ("empty.csv", b"", "cannot be read"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        read(tmp_path / name)


def test_a_directory_is_listed_by_name_without_what_is_no_picture(tmp_path):
    names = ["b/2.JPG", "b/10.jpeg", "a.png", "c.txt", ".hidden.jpg", ".cache/x.jpg", "b/c/d.webp"]
    names += ["e.HEIC", "f.hif", "heic"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (found,) = list_directory(str(tmp_path))
    assert found.to_pydict() == {
        "image": ["a.png", "b/10.jpeg", "b/2.JPG", "b/c/d.webp", "e.HEIC", "f.hif"]
    }


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(UserError, match="none: no such directory"):
        list(list_directory(str(tmp_path / "none")))


def test_fingerprints_tell_when_the_list_changes(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.jpg").write_bytes(b"x")
    first = fingerprint_directory(str(pictures))
    (pictures / "notes.txt").write_bytes(b"x")
    os.utime(pictures / "a.jpg", (0, 0))
    assert fingerprint_directory(str(pictures)) == first
    (pictures / "a.jpg").write_bytes(b"xy")
    assert fingerprint_directory(str(pictures)) != first
    manifest = write(tmp_path, "image", "a.jpg")
    first = fingerprint_manifest(str(manifest))
    assert fingerprint_manifest(str(write(tmp_path, "image", "b.jpg"))) != first
    assert fingerprint_manifest(str(write(tmp_path, "image", "a.jpg"))) == first


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 9))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_parts_hold_the_same_rows_in_the_same_order(sizes, rows):
    numbers = iter(range(100))
    tables = [
        pa.table({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())})
        for size in sizes
    ]
    parts = list(in_parts_of(iter(tables), rows))
    assert [n for part in parts for n in part["n"].to_pylist()] == list(range(sum(sizes)))
    assert all(part.num_rows == rows for part in parts[:-1])
    assert not parts or 0 < parts[-1].num_rows <= rows
