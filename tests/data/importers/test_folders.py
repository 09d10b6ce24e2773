import pytest
from data.importers.shop_trees import draw
from heic import PLAIN
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.folders import convert
from apparel_embed.data.importers.layout import LayoutOptions


def rows(imported):
    table = imported.table
    return list(zip(*(table[name].to_pylist() for name in ("image", "item_id", "vertical"))))


def test_verticals_and_items_are_named_after_folders(tmp_path):
    draw(tmp_path, ["tops/2/b.jpg", "tops/1/a.png", "bags/007/x y.jpg", "bags/007/ä.jpg"])
    imported = convert(tmp_path, LayoutOptions())

    assert rows(imported) == [
        ("bags/007/x y.jpg", "007", "bags"),
        ("bags/007/ä.jpg", "007", "bags"),
        ("tops/1/a.png", "1", "tops"),
        ("tops/2/b.jpg", "2", "tops"),
    ]
    assert imported.counts == {"images": 4, "items": 3}
    assert imported.notes == []
    assert imported.table["source_file"].to_pylist() == imported.table["image"].to_pylist()
    assert imported.table["source_row"].to_pylist() == [None] * 4


def test_heic_images_are_found_before_pillow_registers_their_extension(tmp_path, monkeypatch):
    draw(tmp_path, ["bags/1/a.jpg"])
    (tmp_path / "bags/1/b.HEIC").write_bytes(PLAIN)
    # As in a process that has not opened an image yet.
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)
    imported = convert(tmp_path, LayoutOptions())

    assert imported.table["image"].to_pylist() == ["bags/1/a.jpg", "bags/1/b.HEIC"]
    assert imported.notes == []


def test_items_with_the_same_name_in_two_verticals_get_different_ids(tmp_path):
    draw(tmp_path, ["tops/1/a.jpg", "tops/2/a.jpg", "bags/1/a.jpg", "bags/1/b.jpg"])
    imported = convert(tmp_path, LayoutOptions())

    assert imported.table["item_id"].to_pylist() == ["bags/1", "bags/1", "tops/1", "2"]
    assert imported.counts["items"] == 3
    assert tuple(imported.notes) == (
        "item names found in several verticals: 1; they are different items, and their ids begin "
        "with the vertical (e.g. bags/1)",
    )


def test_folders_are_items_if_the_vertical_is_given(tmp_path):
    draw(tmp_path, ["1/a.jpg", "2/a.jpg"])
    imported = convert(tmp_path, LayoutOptions(vertical="shoes"))

    assert rows(imported) == [("1/a.jpg", "1", "shoes"), ("2/a.jpg", "2", "shoes")]


def test_images_outside_item_folders_are_left_out_and_counted(tmp_path):
    draw(
        tmp_path,
        ["tops/1/a.jpg", "tops/1/worn/b.jpg", "tops/c.jpg", "d.jpg", "tops/1/.e.jpg", ".f/1/g.jpg"],
    )
    (tmp_path / "tops" / "1" / "price.txt").write_text("5")
    (tmp_path / "empty").mkdir()
    imported = convert(tmp_path, LayoutOptions())

    assert imported.table["image"].to_pylist() == ["tops/1/a.jpg"]
    assert tuple(imported.notes) == (
        "left out: files without an image extension: 1 (e.g. tops/1/price.txt)",
        "left out: hidden files and folders: 2 (e.g. .f)",
        "left out: images outside item folders: 3 (e.g. d.jpg)",
    )


def test_the_error_for_no_images_suggests_the_other_layout(tmp_path):
    draw(tmp_path, ["1/a.jpg", "2/a.jpg"])
    with pytest.raises(
        UserError, match=r"no images as <vertical>.*set --vertical.*images outside item"
    ):
        convert(tmp_path, LayoutOptions())
    deeper = tmp_path / "deeper"
    draw(deeper, ["1/b/c.jpg", "2/b/c.jpg"])
    message = r"no images as <item>/<image>; .*images outside item folders: 2"
    with pytest.raises(UserError, match=message):
        convert(deeper, LayoutOptions(vertical="shoes"))
