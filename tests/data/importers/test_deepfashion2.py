import json
import os
import re

import pyarrow as pa
import pytest
from data.importers.published_trees import deepfashion2_garment, make_deepfashion2, write_json

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.deepfashion2 import PUBLISHED, convert
from apparel_embed.data.importers.layout import LayoutOptions

FIRST = "train/annos/000001.json"


@pytest.fixture
def root(tmp_path):
    make_deepfashion2(tmp_path)
    return tmp_path


def change(path, **fields):
    """Sets fields of an annotation; a dictionary sets fields of a garment, None removes a field."""
    annotation = json.loads(path.read_text())
    for name, value in fields.items():
        if isinstance(value, dict) and name in annotation:
            value = {k: v for k, v in {**annotation[name], **value}.items() if v is not None}
        annotation[name] = value
    write_json(path, {name: value for name, value in annotation.items() if value is not None})


def test_an_annotation_whose_name_is_not_utf8_is_refused(root):
    data = (root / FIRST).read_bytes()
    with open(os.path.join(os.fsencode(root / "train" / "annos"), b"\xe9.json"), "wb") as file:
        file.write(data)
    fails(root, r"the name b'\xe9.json' is not UTF-8; rename the file")


def fails(root, message):
    with pytest.raises(UserError) as raised:
        convert(root, LayoutOptions())
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(root))
    assert "\n" not in str(raised.value)


def test_every_garment_with_a_style_is_a_row(root):
    found = convert(root, LayoutOptions())
    assert found.notes == []
    rows = found.table.to_pylist()
    assert len(rows) == 24
    assert rows[1] == {
        "image": "train/image/000001.jpg",
        "item_id": "train-1-2-trousers",
        "vertical": "trousers",
        "split": "train",
        "role": "query",
        "x_min": 8.0,
        "y_min": 22.0,
        "x_max": 40.0,
        "y_max": 46.0,
        "source_file": FIRST,
        "source_row": None,
    }
    assert rows[2]["role"] == "gallery"
    assert rows[2]["item_id"] == rows[0]["item_id"] == "train-1-1-short_sleeve_top"
    assert rows[-1]["item_id"] == "validation-2-2-trousers"
    assert rows[-1]["split"] == "test"
    assert found.table.schema.field("source_row").type == pa.int64()
    assert all((root / row["image"]).is_file() for row in rows)


def test_the_same_pair_number_in_two_splits_gives_two_items(root):
    items = convert(root, LayoutOptions()).table["item_id"].unique().to_pylist()
    assert {"train-1-2-trousers", "validation-1-2-trousers"} <= set(items)


def test_counts_have_the_published_names(root):
    counts = convert(root, LayoutOptions()).counts
    assert counts == {
        "verticals": 2,
        "items": 12,
        "train images": 8,
        "train garments": 20,
        "validation images": 4,
        "validation garments": 10,
    }
    assert set(PUBLISHED) <= set(counts)


def test_a_garment_of_two_categories_becomes_an_item_of_each_with_a_note(root):
    change(root / FIRST, item2={"category_name": "skirt"})
    found = convert(root, LayoutOptions())
    items = found.table["item_id"].to_pylist()
    assert (items[1], items[3]) == ("train-1-2-skirt", "train-1-2-trousers")
    assert tuple(found.notes) == (
        "garments whose category differs between images, split into one item per category: 1",
    )


def test_garments_are_in_order_of_number_and_those_without_area_are_counted(root):
    extra = deepfashion2_garment(9, "skirt", 3, [1, 1, 9, 9])
    flat = deepfashion2_garment(9, "skirt", 4, [5, 5, 5, 9])
    change(root / FIRST, item10=extra, item3=flat, item4={**extra, "style": 5})
    found = convert(root, LayoutOptions())
    assert found.table["item_id"].to_pylist()[:4] == [
        *("train-1-1-short_sleeve_top", "train-1-2-trousers", "train-1-5-skirt", "train-1-3-skirt"),
    ]
    assert tuple(found.notes) == ("garments whose box has no area, left out: 1",)
    assert found.counts["train garments"] == 23


def test_a_bom_and_other_files_make_no_difference(root):
    expected = convert(root, LayoutOptions()).table
    path = root / FIRST
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (root / "train" / "annos" / ".DS_Store").write_bytes(b"\0")
    # macOS adds such files to archives.
    (root / "train" / "annos" / "._000001.json").write_bytes(b"\0\5\x16\7")
    assert convert(root, LayoutOptions()).table.equals(expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "street"}, "source: 'street'; expected one of user, shop"),
        ({"source": None}, "source: missing; expected one of user, shop"),
        ({"source": ["user"]}, "source: ['user']; expected one of user, shop"),
        ({"pair_id": "1"}, "pair_id: '1'; expected a whole number"),
        ({"pair_id": None}, "pair_id: missing; expected a whole number"),
        ({"item1": {"style": None}}, "item1: style: missing; expected a whole number"),
        ({"item1": {"style": 1.5}}, "item1: style: 1.5; expected a whole number"),
        ({"item1": {"style": True}}, "item1: style: True; expected a whole number"),
        ({"item2": {"category_name": " "}}, "item2: category_name: ' '; expected a name"),
        ({"item2": {"category_name": "\ud800"}}, "item2: category_name: '\\ud800'; expected"),
        ({"item2": {"bounding_box": [10**400, 2, 3, 4]}}, "item2: bounding_box: [1000"),
        ({"item2": {"bounding_box": [1, 2, 3]}}, "item2: bounding_box: [1, 2, 3]; expected"),
        ({"item2": {"bounding_box": [1, 2, 3, "4"]}}, "item2: bounding_box: [1, 2, 3, '4']; e"),
        (
            {"item2": {"bounding_box": [1, 2, 3, float("nan")]}},
            "item2: bounding_box: [1, 2, 3, nan]; expected 4",
        ),
        ({"item2": {"bounding_box": None}}, "item2: bounding_box: missing; expected 4 numbers"),
        ({"item3": [1]}, "item3: [1]; expected an object with style"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(root, fields, message):
    change(root / FIRST, **fields)
    fails(root, f"{root / FIRST}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"source": "user", "pair_id": 1, "ite', "invalid or truncated JSON: "),
        (b"", "invalid or truncated JSON: "),
        (b"\xff\xfe\xfd", "invalid or truncated JSON: "),
        (b"[" * 100_000, "invalid or truncated JSON: "),
        (b"[1]", "[1]; expected an object with source"),
    ],
)
def test_a_corrupt_file_is_named(root, content, message):
    (root / FIRST).write_bytes(content)
    fails(root, f"{root / FIRST}: {message}")


def test_the_error_for_a_missing_directory_names_its_zip_file(tmp_path):
    (tmp_path / "train.zip").touch()
    with pytest.raises(UserError) as raised:
        convert(tmp_path, LayoutOptions())
    assert str(raised.value) == (
        f"{tmp_path}: no annotation directory train/annos. {tmp_path}/train.zip is not unpacked: "
        f"unzip it in {tmp_path}, with the password that the dataset's authors send on request"
    )


def test_missing_files_are_named(root):
    for path in (root / "validation" / "annos").iterdir():
        path.unlink()
    fails(root, "validation/annos: found no *.json; copy or unpack the dataset again")
    (root / "validation" / "annos").rmdir()
    found = convert(root, LayoutOptions())
    assert tuple(found.notes) == (f"{root}: no validation/annos: split test will be empty",)
    assert found.table["split"].unique().to_pylist() == ["train"]
    (root / "validation.zip").touch()
    fails(root, "validation.zip is not unpacked: unzip it in")
    (root / "validation.zip").unlink()
    (root / "train").rename(root / "training")
    with pytest.raises(UserError, match=re.escape(f"{root}: no annotation directory train/annos.")):
        convert(root, LayoutOptions())
