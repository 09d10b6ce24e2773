import re

import pytest
from data.importers.published_trees import make_stanford_online_products

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.layout import LayoutOptions
from apparel_embed.data.importers.stanford_online_products import PUBLISHED, convert


@pytest.fixture
def root(tmp_path):
    make_stanford_online_products(tmp_path)
    return tmp_path


def test_every_image_is_a_row_with_training_images_first(root):
    found = convert(root, LayoutOptions())
    rows = found.table.to_pylist()
    assert rows[0] == {
        "image": "chair_final/111085122871_0.JPG",
        "item_id": "1",
        "vertical": "chair",
        "split": "train",
        "role": "both",
        **dict.fromkeys(("x_min", "y_min", "x_max", "y_max")),
        "source_file": "Ebay_train.txt",
        "source_row": 2,
    }
    assert rows[-1] == {
        "image": "bicycle_final/111085122882_2.JPG",
        "item_id": "12",
        "vertical": "bicycle",
        "split": "test",
        "role": "both",
        **dict.fromkeys(("x_min", "y_min", "x_max", "y_max")),
        "source_file": "Ebay_test.txt",
        "source_row": 13,
    }
    assert len(rows) == 28
    assert all((root / row["image"]).is_file() for row in rows)


def test_counts_have_the_published_names(root):
    found = convert(root, LayoutOptions())
    assert found.notes == []
    assert found.counts == {
        "images": 28,
        "items": 12,
        "train images": 16,
        "train items": 8,
        "test images": 12,
        "test items": 4,
        "verticals": 2,
    }
    assert set(found.counts) == set(PUBLISHED)
    for what in ("images", "items"):
        assert PUBLISHED[what] == PUBLISHED[f"train {what}"] + PUBLISHED[f"test {what}"]


def test_verticals_are_directory_names_without_the_final_suffix(root):
    for name in ("Ebay_train.txt", "Ebay_test.txt"):
        text = (root / name).read_text().replace("chair_final", "coffee_maker_final")
        (root / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    verticals = convert(root, LayoutOptions()).table["vertical"].unique().to_pylist()
    assert verticals == ["coffee_maker", "bicycle"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_id class_id", "class_id image_id", "row 1: columns class_id image_id super"),
        ("\n1 1 2", "\n1 x 2", "row 2: column 'class_id': 'x'; expected a whole number"),
        ("1 1 2 chair_final/", "1 1 2 ", "row 2: column 'path': '111085122871_0.JPG'; expected"),
        ("1 1 2 chair", "1 1 2 /data/chair", "column 'path': '/data/chair_final/111085122871_0"),
        (
            "1 1 2 chair_final/111085122871_0.JPG",
            "1 1 2 chair_f",
            "row 2: '1 1 2 chair_f': expected 4",
        ),
        ("2 chair", "chair", "row 2: '1 1 chair_final/111085122871_0.JPG': expected 4 columns"),
    ],
)
def test_the_error_for_a_broken_list_names_file_and_row(root, old, new, message):
    text = (root / "Ebay_train.txt").read_text()
    assert old in text
    (root / "Ebay_train.txt").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(f"{root / 'Ebay_train.txt'}: ")) as raised:
        convert(root, LayoutOptions())
    assert message in str(raised.value)


def test_a_missing_list_is_named(root):
    (root / "Ebay_test.txt").unlink()
    with pytest.raises(
        UserError, match=r"no Ebay_test\.txt, which Stanford Online Products requires"
    ):
        convert(root, LayoutOptions())
