import unicodedata

import pyarrow as pa
import pytest
from data.importers.shop_trees import draw
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.checks import (
    check_boxes,
    check_duplicates,
    check_missing,
)
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.manifest import BOX_COLUMNS


def rows_of(root, images, items=None, boxes=None):
    boxes = boxes or [None] * len(images)
    sides = zip(*(box or [None] * 4 for box in boxes))
    columns = {name: pa.array(side, pa.float64()) for name, side in zip(BOX_COLUMNS, sides)}
    sources = {"source_file": ["t.csv"] * len(images), "source_row": range(2, len(images) + 2)}
    table = {"image": images, "item_id": items or images, **columns, **sources}
    return Rows(pa.table({name: pa.array(values) for name, values in table.items()}), root, {})


def images_of(rows):
    return rows.table["image"].to_pylist()


def test_missing_images_are_an_error_or_left_out(tmp_path):
    draw(tmp_path, ["a.jpg", "B.jpg"])
    rows = rows_of(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    message = (
        r"^\S*/t.csv: row 3: column 'image': 'b.jpg'; no such file in .*, but 'B.jpg' exists "
        r"\(missing in 2 of 3 rows\); --missing=skip leaves them out$"
    )
    with pytest.raises(UserError, match=message):
        check_missing(rows, "error")
    check_missing(rows, "skip")
    assert images_of(rows) == ["a.jpg"]
    assert rows.notes == ["left out: rows whose image is missing: 2 of 3 (e.g. b.jpg)"]
    with pytest.raises(UserError, match=r"\(missing in 2 of 2 rows\)$"):
        check_missing(rows_of(tmp_path, ["b.jpg", "c.jpg"]), "skip")
    check_missing(rows, "error")
    assert images_of(rows) == ["a.jpg"]
    assert len(rows.notes) == 1


def test_the_error_for_several_images_in_a_cell_names_the_flag_that_splits_them(tmp_path):
    draw(tmp_path, ["a.jpg", "b.jpg"])
    rows = rows_of(tmp_path, ["a.jpg", "a.jpg; b.jpg"])
    with pytest.raises(UserError, match=r"\(missing in 1 of 2 .*; --image_separator=';' gives"):
        check_missing(rows, "error")


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_an_image_whose_name_has_another_unicode_form_is_found(tmp_path, stored):
    names = [unicodedata.normalize(form, "rück.jpg") for form in ("NFC", "NFD")]
    draw(tmp_path, ["a.jpg", unicodedata.normalize(stored, "rück.jpg")])
    rows = rows_of(tmp_path, ["a.jpg", *names])
    check_missing(rows, "error")
    assert images_of(rows) == ["a.jpg", *[unicodedata.normalize(stored, "rück.jpg")] * 2]


def test_a_duplicate_is_a_row_with_the_same_image_box_and_item(tmp_path):
    boxes = [(0, 0, 2, 2), (0, 0, 2, 2), (0, 0, 2, 3), None, None, None, None]
    rows = rows_of(tmp_path, list("aaabbbc"), list("1211212"), boxes)
    table = rows.table
    message = r"^\S*/t.csv: row 7: column 'image': 'b'; row 5 has the same .*\(1 of 7 rows are dup"
    with pytest.raises(UserError, match=message):
        check_duplicates(rows, "error")

    check_duplicates(rows, "skip")

    assert rows.table.equals(table.take(pa.array([0, 1, 2, 3, 4, 6])))
    note = "left out: rows with the image, box and item of an earlier row: 1"
    assert rows.notes == [note]
    check_duplicates(rows, "error")
    assert rows.notes == [note]


def test_the_error_for_a_duplicate_names_its_first_row(tmp_path):
    rows = rows_of(tmp_path, list("abcbaa"), list("123211"))
    with pytest.raises(UserError, match=r"row 5: column 'image': 'b'; row 3 has .*\(3 of 6 rows"):
        check_duplicates(rows, "error")
    check_duplicates(rows, "skip")
    assert images_of(rows) == list("abc")


@pytest.mark.parametrize(
    ("box", "column"),
    [
        ((-1.5, 0, 5, 5), "x_min"),
        ((0, -2, 5, 5), "y_min"),
        ((0, 0, 9.5, 5), "x_max"),
        ((0, 0, 5, 8), "y_max"),
        ((20, 20, 30, 30), "x_max"),
    ],
)
def test_a_box_outside_its_image_is_refused_with_the_images_size(tmp_path, box, column):
    draw(tmp_path, ["a.jpg", "b.png"])
    rows = rows_of(tmp_path, ["a.jpg", "b.png", "b.png"], boxes=[(0, 0, 8, 6), None, box])
    value = float(dict(zip(BOX_COLUMNS, box))[column])
    message = rf"^\S*/t.csv: row 4: column '{column}': {value}; the box extends beyond 'b.png' of "
    with pytest.raises(UserError, match=message + r"8x6 pixels \(1 of 2 boxes do\); with"):
        check_boxes(rows)


def test_boxes_refer_to_the_upright_image_and_may_exceed_it_by_a_pixel(tmp_path):
    turned = Image.new("RGB", (6, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    draw(tmp_path, ["a.jpg"])
    images = ["a.jpg", "turned.jpg", "turned.jpg"]
    rows = rows_of(tmp_path, images, boxes=[(-1, -1, 9, 7), (0, 0, 8, 6), None])
    check_boxes(rows)
    assert rows.notes == []
    tall = rows_of(tmp_path, ["turned.jpg"], boxes=[(0, 0, 6, 8)])
    with pytest.raises(UserError, match="8x6 pixels"):
        check_boxes(tall)


def test_unreadable_images_are_counted_and_left_to_preparing(tmp_path):
    draw(tmp_path, ["a.jpg"])
    (tmp_path / "b.jpg").write_text("no image")
    boxes = [(0, 0, 5, 5), (-5, 0, 5, 5), (0, -5, 5, 5)]
    rows = rows_of(tmp_path, ["a.jpg", "b.jpg", "http://x/c.jpg"], boxes=boxes)
    check_boxes(rows)
    assert rows.notes == ["unreadable images with a box: 2; preparing lists them"]
    unboxed = rows_of(tmp_path, ["none.jpg"])
    check_boxes(unboxed)
    assert unboxed.notes == []
