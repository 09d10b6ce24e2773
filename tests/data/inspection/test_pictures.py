import numpy as np
import pytest
from inspected import HEADER, table_of

from apparel_embed.data.inspection import pictures
from apparel_embed.data.inspection.examine import Seen
from apparel_embed.data.inspection.pictures import (
    Opened,
    ask_for,
    check_pictures,
    distinct_pictures,
)

BOXED = (*HEADER, "x_min", "y_min", "x_max", "y_max")


def seen(crop_size=(200, 300), **changes):
    values = {
        "format": "JPEG",
        "size": (400, 600),
        "crop_size": crop_size,
        "overhang": 0.0,
        "content": bytes(16),
        "outlines": np.zeros(4, np.uint64),
        "colours": np.zeros((8, 8, 3), np.uint8),
        "contrast": 50.0,
        "thumbnail": b"",
    }
    return Seen(**{**values, **changes})


def test_rows_of_the_same_file_and_box_are_one_picture(tmp_path):
    label = ("a", "tops", "train", "both")
    box, other = ("0", "0", "10", "20"), ("0", "0", "10.5", "20")
    none = ("",) * 4
    rows = [
        ("x.jpg", *label, *box),
        ("y.jpg", *label, *none),
        ("x.jpg", *label, *other),
        ("x.jpg", *label, *none),
        ("x.jpg", *label, *box),
        ("y.jpg", *label, *none),
        ("x.jpg", *label, *none),
    ]
    distinct, first = distinct_pictures(table_of(tmp_path, rows, BOXED))
    assert distinct.tolist() == [0, 1, 2, 3]
    assert first.tolist() == [0, 1, 2, 3, 0, 1, 3]


def test_without_boxes_rows_of_the_same_file_are_one_picture(tmp_path):
    label = ("a", "tops", "train", "both")
    rows = [(f"{name}.jpg", *label) for name in "abcab"]
    distinct, first = distinct_pictures(table_of(tmp_path, rows))
    assert distinct.tolist() == [0, 1, 2]
    assert first.tolist() == [0, 1, 2, 0, 1]


def test_what_is_opened_has_its_box_and_a_thumbnail_where_wanted(tmp_path):
    label = ("a", "tops", "train", "both")
    rows = [("x.jpg", *label, "0", "1", "10", "20"), ("y.jpg", *label, "", "", "", "")]
    table = table_of(tmp_path, rows, BOXED)
    asked = list(ask_for(table, np.array([0, 1]), [1]))
    assert [one.image for one in asked] == ["x.jpg", "y.jpg"]
    assert [one.box for one in asked] == [(0.0, 1.0, 10.0, 20.0), None]
    assert [one.thumbnail for one in asked] == [False, True]


def test_pictures_of_more_rows_than_are_read_at_once_are_asked_for_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_ROWS_AT_ONCE", 2)
    table = table_of(tmp_path, [(f"{n}.jpg", "a", "tops", "train", "both") for n in range(9)])
    asked = list(ask_for(table, np.array([1, 2, 4, 7, 8]), [4]))
    assert [one.image for one in asked] == ["1.jpg", "2.jpg", "4.jpg", "7.jpg", "8.jpg"]
    assert [one.thumbnail for one in asked] == [False, False, True, False, False]
    assert list(ask_for(table, np.array([], np.int64), [])) == []


def opened(*results):
    return Opened.collect(np.arange(10, 10 + len(results)), results)


def test_results_are_collected_with_reasons_formats_and_thumbnails():
    found = opened(
        seen(),
        "no such file",
        seen(format="PNG", thumbnail=b"jpeg", contrast=1.0),
        seen(content=bytes(range(16))),
    )
    assert found.reasons == {1: "no such file"}
    assert found.formats == {"JPEG": 2, "PNG": 1}
    assert found.usable.tolist() == [True, False, True, True]
    assert found.thumbnails == {12: b"jpeg"}
    assert found.looks.is_blank.tolist() == [False, True, True, False]
    assert found.looks.content[3].tobytes() == bytes(range(16))


def test_sizes_and_shapes_are_counted_from_the_first_class_to_the_last():
    found = opened(seen((63, 20)), seen((64, 64)), seen((300, 200)), "no such file")
    assert found.count_sides() == {"1 to 64": 1, "64 to 128": 1, "128 to 256": 0, "256 to 512": 1}
    assert found.count_shapes() == {
        "0.9 to 1.1": 1,
        "1.1 to 1.5": 0,
        "1.5 to 2": 1,
        "2 to 4": 1,
    }
    assert opened("no such file").count_sides() == {}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("truncated or damaged: image file is truncated (3 bytes)", "truncated or damaged"),
        ("box 1,2,3,4 lies outside the picture of 1x1 pixels", "box outside the picture"),
        ("20000x20000 pixels are more than the 100000000 allowed", "too many pixels"),
        ("http:// is not supported; copy them", "http:// is not supported; copy them"),
    ],
)
def test_reasons_that_differ_in_numbers_are_counted_as_one(reason, kind):
    assert opened(reason, reason, seen()).count_reasons() == {kind: 2}


def checked(*results, min_side=64):
    return {one.code: one for one in check_pictures(opened(*results), min_side)}


def test_sound_pictures_have_no_findings():
    assert checked(seen(), seen((64, 16))) == {}


def test_missing_and_broken_pictures_are_told_with_rows_and_reasons():
    found = checked(seen(), "no such file", seen(), "empty file", seen())
    missing, broken = found["missing_pictures"], found["broken_pictures"]
    assert (missing.rows.tolist(), missing.detail(0)) == ([11], "no such file")
    assert (broken.rows.tolist(), broken.detail(0)) == ([13], "empty file")
    assert (missing.severity, broken.severity) == ("warning", "warning")
    assert checked("no such file", seen())["missing_pictures"].severity == "error"


@pytest.mark.parametrize(
    ("code", "result", "detail"),
    [
        ("small_pictures", seen((63, 40)), "63x40 px"),
        ("long_pictures", seen((401, 100)), "401x100 px"),
        ("long_pictures", seen((100, 401)), "100x401 px"),
        ("blank_pictures", seen(contrast=2.9), "200x300 px"),
        ("box_beyond_picture", seen(overhang=7.2), "by 7 px of 400x600 px"),
    ],
)
def test_odd_pictures_are_told_with_row_and_size(code, result, detail):
    found = checked(seen(), result)
    assert list(found) == [code]
    assert found[code].rows.tolist() == [11]
    assert found[code].count == 1
    assert found[code].detail(0) == detail


def test_the_least_side_is_the_users():
    assert checked(seen((63, 40)), min_side=63) == {}
