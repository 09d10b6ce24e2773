import re

import pytest
from data.importers.published_trees import make_consumer_to_shop

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.deepfashion_consumer_to_shop import PUBLISHED, convert
from apparel_embed.data.importers.layout import LayoutOptions

PARTITION = "Eval/list_eval_partition.txt"
BOXES = "Anno/list_bbox_consumer2shop.txt"
FIRST = "img/DRESSES/Dress/id_00000001"


@pytest.fixture
def root(tmp_path):
    make_consumer_to_shop(tmp_path)
    return tmp_path


def rewrite(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def append_pair(root, street, shop, item, status, count=49):
    rewrite(root / PARTITION, f"{count - 1}\n", f"{count}\n")
    with open(root / PARTITION, "a", encoding="utf-8") as file:
        file.write(f"{street} {shop} {item} {status}\n")


def fails(root, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        convert(root, LayoutOptions())
    assert str(raised.value).startswith(str(root))
    assert "\n" not in str(raised.value)


def test_an_image_in_many_pairs_is_one_row(root):
    found = convert(root, LayoutOptions())
    assert found.notes == []
    rows = found.table.to_pylist()
    assert len(rows) == len({row["image"] for row in rows}) == 72
    assert rows[0] == {
        "image": f"{FIRST}/comsumer_01.jpg",
        "item_id": "id_00000001",
        "vertical": "dresses_dress",
        "split": "train",
        "role": "query",
        "x_min": 3.0,
        "y_min": 5.0,
        "x_max": 33.0,
        "y_max": 45.0,
        "source_file": PARTITION,
        "source_row": 3,
    }
    shop = next(row for row in rows if row["role"] == "gallery")
    assert (shop["image"], shop["source_row"]) == (f"{FIRST}/shop_01.jpg", 3)
    assert all((root / row["image"]).is_file() for row in rows)


def test_splits_and_roles_are_those_of_the_pairs(root):
    rows = convert(root, LayoutOptions()).table.to_pylist()
    found = {}
    for row in rows:
        key = (row["vertical"], row["split"], row["role"])
        found[key] = found.get(key, 0) + 1
    assert found == {
        (vertical, split, role): items * (2 if role == "query" else 1)
        for vertical in ("dresses_dress", "tops_blouse", "clothing_blouse")
        for split, items in (("train", 4), ("val", 2), ("test", 2))
        for role in ("query", "gallery")
    }


def test_counts_have_the_published_names(root):
    counts = convert(root, LayoutOptions()).counts
    assert counts == {"images": 72, "pairs": 48, "items": 24}
    assert set(counts) == set(PUBLISHED)


def test_the_first_line_may_count_images(root):
    rewrite(root / PARTITION, "48\n", "72\n")
    assert convert(root, LayoutOptions()).counts["pairs"] == 48
    rewrite(root / PARTITION, "72\n", "71\n")
    fails(root, f"{PARTITION}: row 1: expected 71 rows, got 48")


def test_duplicate_pairs_and_images_on_both_sides_are_one_row(root):
    line = (root / PARTITION).read_text().splitlines()[2].split()
    append_pair(root, *line)
    append_pair(root, line[1], line[0], *line[2:], count=50)
    rows = convert(root, LayoutOptions()).table.to_pylist()
    assert len(rows) == 72
    roles = {row["image"]: row["role"] for row in rows if row["item_id"] == "id_00000001"}
    assert roles == {
        f"{FIRST}/comsumer_01.jpg": "both",
        f"{FIRST}/comsumer_02.jpg": "query",
        f"{FIRST}/shop_01.jpg": "both",
    }


def test_images_without_box_and_boxes_without_pair_are_counted(root):
    rewrite(root / BOXES, f"{FIRST}/shop_01.jpg", f"{FIRST}/shop_09.jpg")
    found = convert(root, LayoutOptions())
    assert found.counts["images"] == 73
    assert tuple(found.notes) == (
        f"{root / BOXES}: images without a box: 1",
        f"{BOXES}: images in no pair, left out: 1",
    )
    row = next(row for row in found.table.to_pylist() if row["role"] == "gallery")
    assert (row["image"], row["x_min"]) == (f"{FIRST}/shop_01.jpg", None)
    (root / BOXES).unlink()
    found = convert(root, LayoutOptions())
    assert found.table["x_min"].null_count == found.table.num_rows
    assert found.counts["images"] == 72
    assert "whole images are used" in found.notes[0]


def test_the_error_for_an_image_of_two_items_or_splits_names_both_rows(root):
    street, shop = f"{FIRST}/comsumer_01.jpg", "img/DRESSES/Dress/id_00000002/shop_01.jpg"
    append_pair(root, street, shop, "id_00000002", "train")
    fails(
        root,
        f"{PARTITION}: row 51: column 'item_id': 'id_00000002'; {street} has 'id_00000001' "
        "in row 3; an image belongs to one item",
    )
    rewrite(
        root / PARTITION, f"{street} {shop} id_00000002 train", f"{shop} {shop} id_00000002 val"
    )
    fails(root, f"row 51: column 'evaluation_status': 'val'; {shop} has 'train' in row 5;")


def test_windows_line_endings_a_bom_and_spaces_make_no_difference(root):
    expected = convert(root, LayoutOptions()).table
    for name in (PARTITION, BOXES):
        text = (root / name).read_bytes()
        (root / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert convert(root, LayoutOptions()).table.equals(expected)
    for name in (PARTITION, BOXES):
        text = (root / name).read_text("utf-8")
        (root / name).write_text(text.replace("DRESSES/Dress", "DRESSES/Robe d'été"), "utf-8")
    (root / "img/DRESSES/Dress").rename(root / "img/DRESSES/Robe d'été")
    row = convert(root, LayoutOptions()).table.to_pylist()[0]
    assert row["image"] == "img/DRESSES/Robe d'été/id_00000001/comsumer_01.jpg"
    assert (row["vertical"], row["x_max"]) == ("dresses_robe_d_été", 33.0)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            PARTITION,
            " train",
            " Train",
            "row 3: column 'evaluation_status': 'Train'; expected one of ",
        ),
        (PARTITION, "shop_01.jpg", "", f"row 3: '{FIRST}/comsumer_01.jpg"),
        (PARTITION, "img/", "/img/", "row 3: column 'image_pair_name_1': '/img/DRESSES/Dress/"),
        (PARTITION, "    img/", "    img/x/", "row 3: column 'image_pair_name_2': 'img/x/DRESSES"),
        (BOXES, "72\n", "73\n", "row 1: expected 73 rows, got 72"),
        (BOXES, "045", "4S", "row 3: column 'y_2': '4S'; expected a number"),
        (
            BOXES,
            "comsumer_01",
            "shop_01",
            f"row 4: column 'image_name': '{FIRST}/shop_01.jpg'; already",
        ),
    ],
)
def test_the_error_for_a_broken_list_names_file_and_row(root, name, old, new, message):
    rewrite(root / name, old, new)
    fails(root, f"{root / name}: {message}")


def test_missing_files_are_named(root):
    (root / "img").rename(root / "images")
    fails(root, "no images: found neither img/DRESSES nor Img/img/DRESSES.")
    (root / PARTITION).unlink()
    fails(root, "no Eval/list_eval_partition.txt, which the Consumer-to-shop benchmark requires")
