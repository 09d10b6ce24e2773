import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data.importers.shop_trees import draw
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.image_files import (
    LeftOut,
    clean_paths,
    image_sizes,
    images_below,
    is_missing,
    relative_to_manifest,
    similar_file,
)
from apparel_embed.data.importers.rows import Rows


def test_images_are_listed_in_order_and_other_and_hidden_files_are_counted(tmp_path):
    draw(tmp_path, ["b.PNG", "a.jpg", "c.webp", ".d.jpg", "@eaDir/e.jpg", "__MACOSX/f.jpg"])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "Thumbs.db").write_text("no image")
    (tmp_path / "z").mkdir()
    (tmp_path / "y.jpg.d").mkdir()
    left_out = LeftOut()

    assert images_below(tmp_path, left_out) == ["a.jpg", "b.PNG", "c.webp"]
    assert left_out.notes() == (
        "left out: files without an image extension: 2 (e.g. Thumbs.db)",
        "left out: hidden files and folders: 3 (e.g. .d.jpg)",
    )


def test_images_at_any_depth_are_found_once_and_in_order(tmp_path):
    draw(tmp_path, ["b/c/2.jpg", "b/1.jpg", "a.jpg", "b c/ä.jpg"])
    os.symlink(tmp_path / "b", tmp_path / "b" / "c" / "loop")
    os.symlink("self", tmp_path / "self")
    left_out = LeftOut()

    assert images_below(tmp_path, left_out) == ["a.jpg", "b c/ä.jpg", "b/1.jpg", "b/c/2.jpg"]
    assert left_out.notes() == (
        "left out: files without an image extension: 1 (e.g. self)",
        "left out: links to folders that were found already: 1 (e.g. b/c/loop)",
    )


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xe4.jpg"), "wb"):
        pass
    with pytest.raises(UserError, match=r"the name b'\\xe4.jpg' is not UTF-8; rename"):
        images_below(tmp_path, LeftOut())


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        images_below(tmp_path / "none", LeftOut())


def texts(*values):
    return pa.chunked_array([list(values[:1]), list(values[1:])], pa.string())


def cleaned(table):
    rows = Rows(table, Path("none"), {})
    clean_paths(rows)
    return rows.table["image"].to_pylist()


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("./a//b.jpg", "a/b.jpg"),
        ("././a/././b.jpg", "a/b.jpg"),
        ("../a./b.jpg", "../a./b.jpg"),
        (r"a\b c\d.jpg", "a/b c/d.jpg"),
        ("//srv/a.jpg", "/srv/a.jpg"),
        ("https://x//a/./b.jpg", "https://x//a/./b.jpg"),
        ("file:///a/b.jpg", "file:///a/b.jpg"),
        ("a.b/c.jpg", "a.b/c.jpg"),
        ("", ""),
    ],
)
def test_paths_are_normalised(given, clean):
    table = pa.table({"image": [given, "x.jpg"], "source_row": [1, 2]})
    assert cleaned(table) == [clean, "x.jpg"]


def test_a_backslash_in_a_file_name_stays():
    table = pa.table({"image": [r"a\b.jpg"], "source_row": pa.array([None], pa.int64())})
    assert cleaned(table) == [r"a\b.jpg"]


def test_missing_images_are_paths_without_a_file(tmp_path):
    draw(tmp_path, ["a.jpg", "b c/ä.jpg", "b c/d.jpg"])
    (tmp_path / "e.jpg").mkdir()
    os.symlink(tmp_path / "a.jpg", tmp_path / "link.jpg")
    os.symlink(tmp_path / "gone", tmp_path / "dead.jpg")
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.jpg"), "wb"):
        pass
    here = ["a.jpg", "b c/ä.jpg", "link.jpg", f"{tmp_path}/a.jpg", "b c/../a.jpg"]
    here += [f"file://{tmp_path}/b%20c/d.jpg", "https://x/y.jpg", "s3://x/y.jpg", "", "a.jpg"]
    gone = ["A.jpg", "none/a.jpg", "e.jpg", "dead.jpg", f"{tmp_path}/b.jpg", "file:///none.jpg"]
    gone += ["a.jpg/b.jpg", "nul\0.jpg"]
    images = texts(*here, *gone)

    missing = is_missing(images, tmp_path).to_pylist()

    assert missing == [False] * len(here) + [True] * len(gone)


def test_a_file_whose_name_differs_in_case_or_unicode_form_is_found(tmp_path):
    draw(tmp_path, ["x/Café.JPG"])
    assert similar_file(tmp_path, "x/CAFE\u0301.jpg") == "Café.JPG"
    assert similar_file(tmp_path, "x/cafe.jpg") is None
    assert similar_file(tmp_path, "none/cafe.jpg") is None


def test_images_below_the_manifest_are_relative_to_it(tmp_path, monkeypatch):
    uri, outside = "https://x/a.jpg", "/else/where.jpg"
    images = texts("a/b.jpg", uri, outside, f"{tmp_path}/shop/c.jpg", "../up.jpg")

    def named(manifest, root=tmp_path / "shop"):
        return relative_to_manifest(images, Path(root), Path(manifest)).to_pylist()

    assert named(tmp_path / "shop" / "m.csv") == ["a/b.jpg", uri, outside, "c.jpg", "../up.jpg"]
    below = ["shop/a/b.jpg", uri, outside, "shop/c.jpg", "shop/../up.jpg"]
    assert named(tmp_path / "m.csv") == below
    full = [f"{tmp_path}/shop/a/b.jpg", uri, outside, f"{tmp_path}/shop/c.jpg"]
    full.append(f"{tmp_path}/shop/../up.jpg")
    assert named(tmp_path / "other" / "m.csv") == full
    # A directory whose name is a prefix of another's is a different one.
    assert named(tmp_path / "sho" / "m.csv") == full
    monkeypatch.chdir(tmp_path)
    assert named("m.csv", "shop") == below
    assert named("other/m.csv", "./shop") == full


def test_sizes_are_those_of_upright_images_and_unknown_for_unreadable_ones(tmp_path):
    Image.new("RGB", (30, 44)).save(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 44)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    names = ["a.jpg", "turned.jpg", "bad.jpg", "none.jpg", "http://x/y.jpg"]
    widths, heights = image_sizes(tmp_path, names)
    np.testing.assert_array_equal(widths, [30, 44, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(heights, [44, 30, np.nan, np.nan, np.nan])
