import re

import numpy as np
import pytest
from data.importers.published_trees import make_in_shop

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.deepfashion_in_shop import PUBLISHED, convert
from apparel_embed.data.importers.layout import LayoutOptions

PARTITION = "Eval/list_eval_partition.txt"
BOXES = "Anno/list_bbox_inshop.txt"


@pytest.fixture
def root(tmp_path):
    make_in_shop(tmp_path)
    return tmp_path


def rewrite(path, *replacements):
    text = path.read_text("utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, "utf-8")


def fails(root, message, options=None):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        convert(root, options or LayoutOptions())
    assert str(raised.value).startswith(str(root))
    assert "\n" not in str(raised.value)


def test_every_image_is_a_row_with_its_protocol(root):
    found = convert(root, LayoutOptions())
    assert found.notes == []
    assert found.table.num_rows == 42
    rows = found.table.to_pylist()
    assert rows[0] == {
        "image": "img/WOMEN/Dresses/id_00000001/02_1_front.jpg",
        "item_id": "id_00000001",
        "vertical": "women_dresses",
        "split": "train",
        "role": "both",
        "x_min": 4.0,
        "y_min": 6.0,
        "x_max": 36.0,
        "y_max": 38.0,
        "source_file": PARTITION,
        "source_row": 3,
    }
    assert [(row["split"], row["role"]) for row in rows[6:11]] == [
        *(("train", "both"), ("train", "both")),
        *(("test", "query"), ("test", "gallery"), ("test", "gallery")),
    ]
    assert rows[41]["vertical"] == "men_shorts"
    assert rows[41]["source_row"] == 44
    assert all((root / row["image"]).is_file() for row in rows)


def test_counts_have_the_published_names(root):
    counts = convert(root, LayoutOptions()).counts
    assert counts == {
        "images": 42,
        "items": 18,
        "train images": 24,
        "query images": 6,
        "gallery images": 12,
    }
    assert set(counts) == set(PUBLISHED)
    assert PUBLISHED["images"] == sum(
        PUBLISHED[f"{status} images"] for status in ("train", "query", "gallery")
    )


def test_men_and_women_share_a_vertical_if_requested(root):
    found = convert(root, LayoutOptions(separate_genders=False))
    assert found.table["vertical"].unique().to_pylist() == ["dresses", "shorts"]
    assert convert(root, LayoutOptions()).table["vertical"].unique().to_pylist() == [
        *("women_dresses", "women_shorts", "men_shorts"),
    ]


def test_large_images_get_the_boxes_of_the_small_ones(tmp_path):
    make_in_shop(tmp_path, images="img_highres")
    found = convert(tmp_path, LayoutOptions(image_dir="img_highres"))
    row = found.table.to_pylist()[0]
    assert row["image"] == "img_highres/WOMEN/Dresses/id_00000001/02_1_front.jpg"
    # 30x44 fills 174.5x256 of the square, from x = 40.7; a pixel of the square is 44 / 256.
    scale = 44 / 256
    border = (256 - 30 / scale) / 2
    expected = [(64 - border) * scale, 32 * scale, (192 - border) * scale, 224 * scale]
    np.testing.assert_allclose(
        [row[name] for name in ("x_min", "y_min", "x_max", "y_max")], expected
    )
    np.testing.assert_allclose(expected, [4, 5.5, 26, 38.5])
    assert tuple(found.notes) == (
        "boxes were mapped from 256x256 pixels to the size of images in img_highres",
    )


def test_a_mapped_box_is_clipped_to_the_image_and_left_out_if_nothing_remains(tmp_path):
    make_in_shop(tmp_path, images="img_highres")
    box = "064    032    192    224"
    rewrite(tmp_path / BOXES, (box, "000    000    256    256"), (box, "000    010    030    200"))
    (tmp_path / "img_highres/WOMEN/Dresses/id_00000002/02_1_front.jpg").unlink()
    rows = convert(tmp_path, LayoutOptions(image_dir="img_highres")).table.to_pylist()
    corners = [[row[name] for name in ("x_min", "y_min", "x_max", "y_max")] for row in rows]
    assert corners[:3] == [[0, 0, 30, 44], [None] * 4, [None] * 4]
    assert corners[3] == pytest.approx([4, 5.5, 26, 38.5])


def test_lists_and_images_are_found_in_the_usual_places(root):
    (root / PARTITION).rename(root / "list_eval_partition.txt")
    (root / BOXES).rename(root / "list_bbox_inshop.txt")
    (root / "Img").mkdir()
    (root / "img").rename(root / "Img" / "img")
    row = convert(root, LayoutOptions()).table.to_pylist()[0]
    assert row["image"] == "Img/img/WOMEN/Dresses/id_00000001/02_1_front.jpg"
    assert (row["source_file"], row["x_max"]) == ("list_eval_partition.txt", 36.0)


def test_without_boxes_whole_images_are_used(root):
    (root / BOXES).unlink()
    found = convert(root, LayoutOptions())
    assert found.table["x_min"].null_count == found.table.num_rows
    assert tuple(found.notes) == (
        f"{root}: no Anno/list_bbox_inshop.txt: whole images are used, without boxes",
    )


def test_duplicate_rows_are_left_to_the_common_checks(root):
    line = (root / PARTITION).read_text().splitlines()[2]
    rewrite(root / PARTITION, ("42\n", "43\n"))
    with open(root / PARTITION, "a") as file:
        file.write(f"{line}\n")
    found = convert(root, LayoutOptions())
    assert found.table.num_rows == 43
    assert found.counts["images"] == 42
    first, again = (found.table.slice(index, 1).to_pylist()[0] for index in (0, 42))
    assert (first.pop("source_row"), again.pop("source_row")) == (3, 45)
    assert first == again


def test_windows_line_endings_a_bom_and_spaces_make_no_difference(root):
    expected = convert(root, LayoutOptions()).table
    for name in (PARTITION, BOXES):
        text = (root / name).read_bytes()
        (root / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert convert(root, LayoutOptions()).table.equals(expected)
    for name in (PARTITION, BOXES):
        text = (root / name).read_text("utf-8")
        (root / name).write_text(text.replace("MEN/Shorts", "MEN/Été court"), "utf-8")
    (root / "img/MEN/Shorts").rename(root / "img/MEN/Été court")
    rows = convert(root, LayoutOptions()).table.to_pylist()
    assert rows[41]["vertical"] == "men_été_court"
    assert rows[41]["image"].startswith("img/MEN/Été court/id_")
    assert rows[41]["x_min"] == 4.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("42\n", "41\n", f"{PARTITION}: row 1: expected 41 rows, got 42"),
        (
            "query",
            "qeury",
            f"{PARTITION}: row 11: column 'evaluation_status': 'qeury'; expected one of t",
        ),
        ("img/", "/data/img/", f"{PARTITION}: row 3: column 'image_name': '/data/img/WOMEN/"),
        ("img/WOMEN/", "img/", f"{PARTITION}: row 3: column 'image_name': 'img/Dresses/id_00000"),
        (" item_id", "", f"{PARTITION}: row 2: columns image_name evaluation_status; expected"),
    ],
)
def test_the_error_for_a_broken_partition_names_file_and_row(root, old, new, message):
    rewrite(root / PARTITION, (old, new))
    fails(root, message)


def test_the_error_for_a_broken_list_of_boxes_names_file_and_row(root):
    rewrite(root / BOXES, ("036", "36px"))
    fails(root, f"{BOXES}: row 3: column 'x_2': '36px'; expected a number")


def test_the_error_for_a_truncated_list_names_the_expected_number_of_rows(root):
    text = (root / PARTITION).read_text()
    (root / PARTITION).write_text(text[: len(text) // 2])
    fails(root, f"{PARTITION}: row 1: expected 42 rows, got ")


def test_missing_files_are_named(root):
    fails(
        root,
        "no images: found neither img_highres/WOMEN",
        LayoutOptions(image_dir="img_highres"),
    )
    (root / PARTITION).unlink()
    fails(root, "no Eval/list_eval_partition.txt, which the In-shop benchmark requires")


def test_an_unpublished_image_directory_is_refused(root):
    with pytest.raises(
        UserError, match="--image_dir=small is unknown; expected one of img, img_hi"
    ):
        convert(root, LayoutOptions(image_dir="small"))
