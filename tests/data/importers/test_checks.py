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
from apparel_embed.data.manifest import BOX_COLUMNS, Place


def places(_, indices):
    return [Place("t.csv", int(index) + 2) for index in indices]


def table_of(images, items=None, boxes=None):
    boxes = boxes or [None] * len(images)
    sides = zip(*(box or [None] * 4 for box in boxes))
    columns = {name: pa.array(side, pa.float64()) for name, side in zip(BOX_COLUMNS, sides)}
    return pa.table({"image": images, "item_id": items or images, **columns})


def test_missing_pictures_are_an_error_or_left_out(tmp_path):
    draw(tmp_path, ["a.jpg", "B.jpg"])
    table = table_of(["a.jpg", "b.jpg", "c.jpg"])
    message = (
        r"^t.csv: row 3: column 'image': 'b.jpg'; no such file in .*, but there is 'B.jpg' "
        r"\(2 of 3 rows have no image\); --missing=skip leaves them out$"
    )
    with pytest.raises(UserError, match=message):
        check_missing(table, tmp_path, places, "error")
    left, notes = check_missing(table, tmp_path, places, "skip")
    assert left["image"].to_pylist() == ["a.jpg"]
    assert notes == ("left out: rows whose image is missing: 2 of 3 (e.g. b.jpg)",)
    with pytest.raises(UserError, match=r"\(2 of 2 rows have no image\)$"):
        check_missing(table.slice(1), tmp_path, places, "skip")
    assert check_missing(left, tmp_path, places, "error") == (left, ())


def test_a_duplicate_is_a_row_with_the_same_picture_box_and_item():
    boxes = [(0, 0, 2, 2), (0, 0, 2, 2), (0, 0, 2, 3), None, None, None, None]
    table = table_of(list("aaabbbc"), list("1211212"), boxes)
    message = r"^t.csv: row 7: column 'image': 'b'; row 5 has the same .*\(1 of 7 rows are such"
    with pytest.raises(UserError, match=message):
        check_duplicates(table, places, "error")

    left, notes = check_duplicates(table, places, "skip")

    assert left.equals(table.take(pa.array([0, 1, 2, 3, 4, 6])))
    assert notes == ("left out: rows of an image, box and item that are there already: 1",)
    assert check_duplicates(left, places, "error") == (left, ())


def test_the_first_duplicate_is_named_by_where_it_was_first():
    table = table_of(list("abcbaa"), list("123211"))
    with pytest.raises(UserError, match=r"row 5: column 'image': 'b'; row 3 has .*\(3 of 6 rows"):
        check_duplicates(table, places, "error")
    left, _ = check_duplicates(table, places, "skip")
    assert left["image"].to_pylist() == list("abc")


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
def test_a_box_outside_its_picture_is_refused_with_the_pictures_size(tmp_path, box, column):
    draw(tmp_path, ["a.jpg", "b.png"])
    table = table_of(["a.jpg", "b.png", "b.png"], boxes=[(0, 0, 8, 6), None, box])
    value = dict(zip(BOX_COLUMNS, box))[column]
    message = rf"^t.csv: row 4: column '{column}': {value}; the box reaches out of 'b.png', which "
    with pytest.raises(UserError, match=message + r"has 8x6 pixels \(1 of 2 boxes do\); --nocheck"):
        check_boxes(table, tmp_path, places)


def test_boxes_may_reach_out_by_a_pixel_and_are_those_of_the_upright_picture(tmp_path):
    turned = Image.new("RGB", (6, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    draw(tmp_path, ["a.jpg"])
    images = ["a.jpg", "turned.jpg", "turned.jpg"]
    table = table_of(images, boxes=[(-1, -1, 9, 7), (0, 0, 8, 6), None])
    assert check_boxes(table, tmp_path, places) == ()
    tall = table_of(["turned.jpg"], boxes=[(0, 0, 6, 8)])
    with pytest.raises(UserError, match="8x6 pixels"):
        check_boxes(tall, tmp_path, places)


def test_pictures_that_cannot_be_read_are_counted_and_left_to_preparing(tmp_path):
    draw(tmp_path, ["a.jpg"])
    (tmp_path / "b.jpg").write_text("no picture")
    table = table_of(
        ["a.jpg", "b.jpg", "http://x/c.jpg"], boxes=[(0, 0, 5, 5), (-5, 0, 5, 5), (0, -5, 5, 5)]
    )
    assert check_boxes(table, tmp_path, places) == (
        "images with a box that cannot be read: 2; preparing lists them",
    )
    assert check_boxes(table_of(["none.jpg"]), tmp_path, places) == ()
