import numpy as np
import pytest

from apparel_embed.data.inspection.examine import LOOK, Opened
from apparel_embed.data.inspection.images import (
    check_images,
    count_formats,
    count_reasons,
    count_shapes,
    count_sides,
)


def seen(crop_size=(200, 300), format="JPEG", overhang=0.0, contrast=50.0, content=(0, 0)):
    look = np.zeros((), LOOK)
    look["size"], look["crop_size"], look["content"] = (400, 600), crop_size, content
    look["overhang"], look["contrast"] = overhang, contrast
    look["format"] = format
    return look


def opened(*results):
    return Opened.collect(np.arange(10, 10 + len(results)), results)


def test_results_are_collected_with_reasons_and_formats():
    found = opened(
        seen(),
        "no such file",
        seen(format="PNG", contrast=1.0),
        seen(content=(1, 2)),
    )
    assert found.reasons == {1: "no such file"}
    assert count_formats(found) == {"JPEG": 2, "PNG": 1}
    assert found.is_usable.tolist() == [True, False, True, True]
    assert found.is_blank.tolist() == [False, True, True, False]
    assert found.looks["content"][3].tolist() == [1, 2]


def test_sizes_and_shapes_are_counted_from_the_first_class_to_the_last():
    found = opened(seen((63, 20)), seen((64, 64)), seen((300, 200)), "no such file")
    assert count_sides(found) == {"1 to 64": 1, "64 to 128": 1, "128 to 256": 0, "256 to 512": 1}
    assert count_shapes(found) == {
        "0.9 to 1.1": 1,
        "1.1 to 1.5": 0,
        "1.5 to 2": 1,
        "2 to 4": 1,
    }
    assert count_sides(opened("no such file")) == {}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("truncated or damaged: image file is truncated (3 bytes)", "truncated or damaged"),
        ("box 1,2,3,4 lies outside the image of 1x1 pixels", "box outside the image"),
        ("20000x20000 pixels are more than the 100000000 allowed", "too many pixels"),
        ("http:// is not supported; copy them", "http:// is not supported; copy them"),
    ],
)
def test_reasons_that_differ_only_in_numbers_are_counted_together(reason, kind):
    assert count_reasons(opened(reason, reason, seen())) == {kind: 2}


def checked(*results, min_side=64):
    return {one.code: one for one in check_images(opened(*results), min_side)}


def test_sound_images_have_no_findings():
    assert checked(seen(), seen((64, 16))) == {}


def test_missing_and_broken_images_are_reported_with_rows_and_reasons():
    found = checked(seen(), "no such file", seen(), "empty file", seen())
    missing, broken = found["missing_images"], found["broken_images"]
    assert (missing.rows.tolist(), missing.detail(0)) == ([11], "no such file")
    assert (broken.rows.tolist(), broken.detail(0)) == ([13], "empty file")
    assert (missing.severity, broken.severity) == ("warning", "warning")
    assert checked("no such file", seen())["missing_images"].severity == "error"


@pytest.mark.parametrize(
    ("code", "result", "detail"),
    [
        ("small_images", seen((63, 40)), "63x40 px"),
        ("long_images", seen((401, 100)), "401x100 px"),
        ("long_images", seen((100, 401)), "100x401 px"),
        ("blank_images", seen(contrast=2.9), "200x300 px"),
        ("box_beyond_image", seen(overhang=7.2), "by 7 px of 400x600 px"),
    ],
)
def test_odd_images_are_reported_with_row_and_size(code, result, detail):
    found = checked(seen(), result)
    assert list(found) == [code]
    assert found[code].rows.tolist() == [11]
    assert found[code].count == 1
    assert found[code].detail(0) == detail


def test_the_minimum_side_is_configurable():
    assert checked(seen((63, 40)), min_side=63) == {}
