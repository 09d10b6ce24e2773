import json
import os
import re

import pyarrow as pa
import pytest
from data.importers.published_trees import make_street2shop, write_json

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.layout import LayoutOptions
from apparel_embed.data.importers.street2shop import PUBLISHED, convert

META = "meta/json"


@pytest.fixture
def root(tmp_path):
    make_street2shop(tmp_path)
    return tmp_path


def entries(root, name):
    return json.loads((root / META / f"{name}.json").read_text())


def fails(root, message, options=None):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        convert(root, options or LayoutOptions())
    assert str(raised.value).startswith(str(root))
    assert "\n" not in str(raised.value)


def test_street_images_have_boxes_and_shop_images_do_not(root):
    rows = convert(root, LayoutOptions()).table.to_pylist()
    assert rows[0] == {
        "image": "images/000000011.jpeg",
        "item_id": "bags-1",
        "vertical": "bags",
        "split": "train",
        "role": "query",
        "x_min": 5.0,
        "y_min": 4.0,
        "x_max": 35.0,
        "y_max": 40.0,
        "source_file": f"{META}/train_pairs_bags.json",
        "source_row": 0,
    }
    assert rows[-1] == {
        "image": "images/000000135.jpeg",
        "item_id": "dresses-7",
        "vertical": "dresses",
        "split": "test",
        "role": "gallery",
        "x_min": None,
        "y_min": None,
        "x_max": None,
        "y_max": None,
        "source_file": f"{META}/retrieval_dresses.json",
        "source_row": 13,
    }
    assert convert(root, LayoutOptions()).table.schema.field("source_row").type == pa.int64()
    missing = {row["image"] for row in rows if not (root / row["image"]).is_file()}
    assert len(missing) == 2


def test_products_of_training_pairs_are_train_and_all_others_test(root):
    rows = convert(root, LayoutOptions()).table.to_pylist()
    splits = {(row["item_id"], row["split"]) for row in rows}
    assert splits == {
        (f"{vertical}-{product}", "train" if product <= 4 else "test")
        for vertical in ("bags", "dresses")
        for product in range(1, 8)
    }


def test_missing_images_get_the_expected_names(root):
    found = convert(root, LayoutOptions())
    assert found.notes == []
    assert found.counts == {
        "street images": 12,
        "shop images": 28,
        "pairs": 12,
        "verticals": 2,
        "items": 14,
    }
    assert set(PUBLISHED) <= set(found.counts)
    assert found.table.num_rows == 40
    images = found.table["image"].to_pylist()
    assert [name for name in images if not (root / name).is_file()] == [
        "images/000000016.jpeg",
        "images/000000023.jpeg",
    ]


def test_images_are_found_by_number_whatever_their_extension_and_folder(root):
    names = {11: "bags/11.JPEG", 12: "bags/0000000012", 13: "13.png", 111: "x y/000000111.jpg"}
    for number, name in names.items():
        (root / "images" / name).parent.mkdir(exist_ok=True)
        (root / "images" / f"{number:09}.jpeg").rename(root / "images" / name)
    for name in ("errors.txt", "1e3.jpg", "a11.jpg", "11.tar.gz"):
        (root / "images" / name).touch()
    found = convert(root, LayoutOptions())
    images = {row["image"] for row in found.table.to_pylist()}
    assert {f"images/{name}" for name in names.values()} <= images
    assert sum((root / image).is_file() for image in images) == 38
    assert tuple(found.notes) == (
        "left out: files without an image extension: 4 (e.g. images/11.tar.gz)",
    )


def test_images_in_linked_folders_are_found(root):
    (root / "images").rename(root / "elsewhere")
    (root / "images").mkdir()
    (root / "images" / "disk2").symlink_to(root / "elsewhere")
    found = convert(root, LayoutOptions())
    assert found.table["image"][0].as_py() == "images/disk2/000000011.jpeg"
    assert found.notes == []


def test_the_first_of_several_files_with_the_same_number_is_used(root):
    (root / "images" / "a").mkdir()
    for name in ("000000011.png", "a/11.jpg", "11.jpeg"):
        (root / "images" / name).write_bytes((root / "images/000000011.jpeg").read_bytes())
    assert convert(root, LayoutOptions()).table["image"][0].as_py() == "images/000000011.jpeg"


def test_images_may_be_in_another_directory(root):
    (root / "images").rename(root / "downloaded")
    found = convert(root, LayoutOptions(image_dir="downloaded"))
    assert found.table["image"][0].as_py() == "downloaded/000000011.jpeg"


def test_lists_may_be_nested_twice(root):
    (root / "meta").rename(root / "inner")
    (root / "meta").mkdir()
    (root / "inner").rename(root / "meta" / "meta")
    found = convert(root, LayoutOptions())
    assert found.table["source_file"][0].as_py() == "meta/meta/json/train_pairs_bags.json"


def test_a_photo_of_two_products_is_two_rows(root):
    pairs = entries(root, "train_pairs_bags")
    other = {**pairs[0], "product": 2, "bbox": {"left": 0, "top": 1, "width": 2.5, "height": 3}}
    write_json(root / META / "train_pairs_bags.json", [*pairs, other])
    found = convert(root, LayoutOptions())
    rows = [row for row in found.table.to_pylist() if row["image"] == "images/000000011.jpeg"]
    assert [(row["item_id"], row["x_max"], row["y_max"]) for row in rows] == [
        *(("bags-1", 35.0, 40.0), ("bags-2", 2.5, 4.0)),
    ]
    assert found.counts["street images"] == 12
    assert found.counts["pairs"] == 13


def test_unusable_entries_are_left_out_and_counted(root):
    train, test = entries(root, "train_pairs_bags"), entries(root, "test_pairs_bags")
    flat = {**train[1], "bbox": {"left": 3, "top": 1, "width": 0, "height": 3}}
    torn = {**train[2], "product": test[0]["product"]}
    write_json(root / META / "train_pairs_bags.json", [*train, train[0], flat, torn])
    shop = entries(root, "retrieval_bags")
    write_json(root / META / "retrieval_bags.json", [*shop, shop[-1]])
    found = convert(root, LayoutOptions())
    assert tuple(found.notes) == (
        "bags: training pairs whose product is also in test pairs, left out: 1",
        "bags: pairs whose box has no area, left out: 1",
        "bags: duplicate entries, left out: 2",
    )
    assert found.table.num_rows == 40
    assert found.counts["pairs"] == 15


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retrieval_bags", {"photo": 1}, "expected a list of objects with photo"),
        (
            "retrieval_bags",
            [{"photo": 1, "product": 1}, 2],
            "element 1: 2; expected an object with photo",
        ),
        (
            "retrieval_bags",
            [{"photo": 1}],
            "element 0: product: missing; expected a whole number, 0 or",
        ),
        ("retrieval_bags", [{"photo": "1", "product": 1}], "element 0: photo: '1'; expected"),
        ("retrieval_bags", [{"photo": -1, "product": 1}], "element 0: photo: -1; expected a whole"),
        (
            "test_pairs_bags",
            [{"photo": 1, "product": 1}],
            "element 0: bbox: missing; expected left, top, w",
        ),
        (
            "test_pairs_bags",
            [{"photo": 1, "product": 1, "bbox": {"left": 1, "top": 2, "width": 3}}],
            "element 0: bbox: {'left': 1, 'top': 2, 'width': 3}; expected left, top, width, ",
        ),
        (
            "test_pairs_bags",
            [{"photo": 1, "product": 1, "bbox": dict.fromkeys(("left", "top", "width"), "1")}],
            "element 0: bbox: {'left': '1', 'top': '1', 'width': '1'}; expected left, top",
        ),
    ],
)
def test_a_wrong_element_is_named_with_its_file(root, name, value, message):
    write_json(root / META / f"{name}.json", value)
    fails(root, f"{root / META / name}.json: {message}")


def test_a_truncated_list_is_named(root):
    path = root / META / "train_pairs_bags.json"
    path.write_text(path.read_text()[:-9])
    fails(root, f"{path}: invalid or truncated JSON: ")
    path.unlink()
    fails(root, f"{path}: cannot be read: No such file or directory")


def test_an_image_whose_name_is_not_utf8_is_refused(root):
    with open(os.path.join(os.fsencode(root / "images"), b"99\xff.jpg"), "wb"):
        pass
    fails(root, r"the name b'images/99\xff.jpg' is not UTF-8; rename")


def test_a_list_whose_name_is_not_utf8_is_refused(root):
    with open(os.path.join(os.fsencode(root / META), b"retrieval_caf\xe9.json"), "wb"):
        pass
    fails(root, r"the name b'retrieval_caf\xe9.json' is not UTF-8; rename")


def test_a_box_may_exceed_the_exact_whole_numbers_of_a_float(root):
    pairs = entries(root, "train_pairs_bags")
    pairs[0]["bbox"] = {"left": 0, "top": 1, "width": 2**53 + 1, "height": 2**70}
    write_json(root / META / "train_pairs_bags.json", pairs)
    row = convert(root, LayoutOptions()).table.to_pylist()[0]
    assert [row[name] for name in ("x_min", "y_min", "x_max", "y_max")] == [0, 1, 2.0**53, 2.0**70]


def test_missing_files_are_named(root):
    (root / "images").rename(root / "downloads")
    fails(root, "images: no such directory; download the images there from the URLs in photos/")
    (root / "meta").rename(root / "lists")
    (root / "meta.zip").touch()
    fails(
        root, "no meta/json/retrieval_<vertical>.json, the dataset's lists; expected the directory"
    )
    fails(root, "meta.zip is not unpacked")
