import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.published import (
    find_file,
    find_images,
    read_boxes,
    read_list,
    to_vertical,
)

HEADER = "image_name item_id evaluation_status"


def write(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def read(tmp_path, text, columns=HEADER, images=("image_name",), **how):
    return read_list(write(tmp_path, text), columns, images, **how)


def cells(lines, column):
    return [line[column] for line in lines]


def fails(tmp_path, text, message, **how):
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / 'list.txt'))}: ") as raised:
        read(tmp_path, text, **how)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cells_are_split_at_white_space_and_rows_are_numbered_by_line(tmp_path):
    listed = read(
        tmp_path,
        f"3\n{HEADER}\nimg/a.jpg      id_1 train      \n\n"
        "\timg/b.JPEG\t\tid_02   query\nc.png d e\n",
    )
    assert [tuple(line.cells.values()) for line in listed] == [
        ("img/a.jpg", "id_1", "train"),
        ("img/b.JPEG", "id_02", "query"),
        ("c.png", "d", "e"),
    ]
    assert [line.row for line in listed] == [3, 5, 6]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_endings_of_every_system_and_a_bom_are_accepted(tmp_path, end, last):
    text = end.join(["2", HEADER, "img/a.jpg id_1 train", "img/b.jpg id_2 train"]) + last * end
    listed = read(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert cells(listed, "image_name") == ["img/a.jpg", "img/b.jpg"]
    assert cells(listed, "evaluation_status") == ["train", "train"]
    assert [line.row for line in listed] == [3, 4]


def test_paths_may_contain_spaces_and_any_letters(tmp_path):
    listed = read(
        tmp_path,
        "2\none two item\n"
        "img/Été 2016/a  b.jpg   img/ドレス/shop 1.webp id_1\n"
        "img/v1.2 x/a.jpg img/b.jpg id_2\n",
        "one two item",
        ("one", "two"),
    )
    assert cells(listed, "one") == ["img/Été 2016/a  b.jpg", "img/v1.2 x/a.jpg"]
    assert cells(listed, "two") == ["img/ドレス/shop 1.webp", "img/b.jpg"]
    assert cells(listed, "item") == ["id_1", "id_2"]


words = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=6)
names = st.lists(words, min_size=1, max_size=3).map(lambda parts: f"{' '.join(parts)}.jpg")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(names, words), min_size=1, max_size=5), pad=st.integers(1, 9))
def test_a_written_list_is_read_back(tmp_path_factory, rows, pad):
    # A path ends at its first ".jpg", by design.
    rows = [(name, item) for name, item in rows if ".jpg " not in name] or [("a.jpg", "b")]
    body = "".join(f"{name}{' ' * pad}{item} train{' ' * pad}\n" for name, item in rows)
    listed = read(tmp_path_factory.mktemp("list"), f"{len(rows)}\n{HEADER}\n{body}")
    assert [(line["image_name"], line["item_id"]) for line in listed] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("3\n", "row 2: columns (none); expected: image_name item_id evaluation_status"),
        ("1\nimage_name item_id\na.jpg 1 train\n", "row 2: columns image_name item_id; expected"),
        (f"{HEADER}\na.jpg 1 train\n", "row 2: columns a.jpg 1 train; expected"),
        (f"many\n{HEADER}\na.jpg 1 train\n", "row 1: 'many'; expected the number of rows"),
        (f"3\n{HEADER}\na.jpg 1 train\nb.jpg 1 train\n", "row 1: expected 3 rows, got 2"),
        (f"1\n{HEADER}\na.jpg 1 train\nb.jpg 1 train\n", "row 1: expected 1 rows, got 2"),
        (f"3\n{HEADER}\na.jpg 1 train\nb.jp", "row 1: expected 3 rows, got 2"),
        (f"2\n{HEADER}\na.jpg 1 train\nb.jpg 1\n", "row 4: 'b.jpg 1': expected 3 columns"),
        (f"2\n{HEADER}\na.jpg 1 train\n\nb.jpg 1 2 train\n", "row 5: 'b.jpg 1 2 train': ex"),
        (f"1\n{HEADER}\na.txt 1 train\n", "row 3: 'a.txt 1 train': expected 3 columns"),
        (f"1\n{HEADER}\n{'a' * 999} 1 train\n", f"row 3: '{'a' * 117}...': expected"),
        (b"1\n" + HEADER.encode() + b"\n\xff.jpg 1 train\n", "row 3: not UTF-8 text"),
        ("1\n".encode("utf-16"), "row 1: not UTF-8 text"),
        (f"0\n{HEADER}\n", "no rows after the column names"),
        (f"{'9' * 5000}\n{HEADER}\na.jpg 1 train\n", "row 1: '999"),
    ],
)
def test_the_error_for_a_broken_list_names_the_row_and_what_is_expected(tmp_path, text, message):
    fails(tmp_path, text, message)


def test_a_list_without_a_count_begins_with_its_columns(tmp_path):
    listed = read(tmp_path, f"{HEADER}\na.jpg 1 train\n", counted=False)
    assert [line.row for line in listed] == [2]
    fails(tmp_path, f"1\n{HEADER}\na.jpg 1 train\n", "row 1: columns 1; expected", counted=False)


def test_the_first_line_may_count_images(tmp_path):
    text = f"1\n{HEADER}\na.jpg 1 train\na.jpg 1 train\n"
    assert len(read(tmp_path, text, may_count_images=True)) == 2
    assert len(read(tmp_path, f"2{text[1:]}", may_count_images=True)) == 2
    fails(tmp_path, text, "expected 1 rows, got 2")
    fails(tmp_path, f"3{text[1:]}", "expected 3 rows, got 2", may_count_images=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"list\.txt: cannot be read"):
        read_list(tmp_path / "list.txt", HEADER, ["image_name"])


def test_the_error_for_a_refused_value_names_its_row(tmp_path):
    listed = read(tmp_path, f"2\n{HEADER}\na.jpg 1 train\nb.jpg 2 tset\n")
    with pytest.raises(
        UserError, match="row 4: column 'evaluation_status': 'tset'; expected one of train"
    ):
        for line in listed:
            line.choice("evaluation_status", ("train", "test"))


PATHS = [
    "img/WOMEN/a.jpg",
    "/data/img/WOMEN/a.jpg",
    "C:/img/WOMEN/a.jpg",
    "img/../a.jpg",
    "img/./a.jpg",
    "img\\WOMEN\\a.jpg",
    "img/a.jpg",
    "img/WOMEN/Dresses/a.jpg",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_have_the_published_depth_and_stay_in_the_dataset(tmp_path, path):
    first, second = read(tmp_path, f"2\n{HEADER}\nimg/MEN/b.jpg 1 train\n{path} 1 train\n")
    assert first.path_parts("image_name", like=PATHS[0]) == ["img", "MEN", "b.jpg"]
    if path == PATHS[0]:
        assert second.path_parts("image_name", like=PATHS[0]) == ["img", "WOMEN", "a.jpg"]
        return
    with pytest.raises(UserError) as raised:
        second.path_parts("image_name", like=PATHS[0])
    assert f"row 4: column 'image_name': {path!r}; expected a path relative to" in str(raised.value)
    assert "img/WOMEN/a.jpg" in str(raised.value)


def boxes(tmp_path, *rows, images=()):
    write(tmp_path, f"{len(rows)}\nimage_name type x_1 y_1 x_2 y_2\n" + "\n".join(rows))
    return read_boxes(tmp_path, "Anno/list.txt", "image_name type", images)


def test_boxes_without_area_are_none_and_counted(tmp_path):
    found, notes = boxes(
        tmp_path, "a.jpg 1 065 045 233 252", "b.jpg 1 -3 1.5 7 9", "c.jpg 1 5 5 5 9"
    )
    assert found == {
        "a.jpg": (65.0, 45.0, 233.0, 252.0),
        "b.jpg": (-3.0, 1.5, 7.0, 9.0),
        "c.jpg": None,
    }
    assert notes == [f"{tmp_path / 'list.txt'}: boxes without area, left out: 1"]


@pytest.mark.parametrize("value", ["x", "1e3", "nan", "inf", "1,5", "--1", "0x1f"])
def test_the_error_for_a_box_that_is_not_a_number_names_its_row(tmp_path, value):
    with pytest.raises(UserError) as raised:
        boxes(tmp_path, "a.jpg 1 1 2 3 4", f"b.jpg 1 1 2 {value} 4")
    assert f"row 4: column 'x_2': {value!r}; expected a number of pixels" in str(raised.value)


def test_images_without_a_box_and_a_missing_list_are_noted(tmp_path):
    _, notes = boxes(tmp_path, "b.jpg 1 5 6 7 8", images=["a.jpg", "b.jpg", "c.jpg"])
    assert notes == [f"{tmp_path / 'list.txt'}: images without a box: 2"]
    (tmp_path / "list.txt").unlink()
    found, notes = read_boxes(tmp_path, "Anno/list.txt", "image_name type", ["a.jpg"])
    assert found == {}
    assert notes == [f"{tmp_path}: no Anno/list.txt: whole images are used, without boxes"]


def test_the_error_for_an_image_with_two_boxes_names_both_rows(tmp_path):
    message = r"row 5: column 'image_name': 'a.jpg'; already listed in row 3"
    with pytest.raises(UserError, match=message):
        boxes(tmp_path, "a.jpg 1 1 2 3 4", "b.jpg 1 1 2 3 4", "a.jpg 1 1 2 3 4")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_published_path_of_a_list_comes_first(tmp_path):
    touch(tmp_path / "list.txt")
    assert find_file(tmp_path, "Eval/list.txt", "the benchmark") == "list.txt"
    touch(tmp_path / "eval" / "list.txt")
    assert find_file(tmp_path, "Eval/list.txt", "the benchmark") == "eval/list.txt"
    touch(tmp_path / "Eval" / "list.txt")
    assert find_file(tmp_path, "Eval/list.txt", "the benchmark") == "Eval/list.txt"


def test_the_error_for_a_missing_list_names_a_zip_that_may_contain_it(tmp_path):
    with pytest.raises(UserError) as raised:
        find_file(tmp_path, "Eval/list.txt", "the benchmark")
    assert str(raised.value) == (
        f"{tmp_path}: no Eval/list.txt, which the benchmark requires; is this the right directory?"
    )
    touch(tmp_path / "Eval.zip")
    with pytest.raises(UserError, match=r"Eval\.zip is not unpacked: unzip it in .*password"):
        find_file(tmp_path, "Eval/list.txt", "the benchmark")


@pytest.mark.parametrize("place", ["img", "Img/img", "img/img", "Img/img/img"])
def test_images_are_found_however_their_zip_was_unpacked(tmp_path, place):
    touch(tmp_path / place / "MEN" / "a.jpg")
    assert find_images(tmp_path, "img", ["WOMEN", "MEN"]) == place


def test_the_error_for_missing_images_names_their_zip_file(tmp_path):
    touch(tmp_path / "img" / "readme")
    with pytest.raises(UserError) as raised:
        find_images(tmp_path, "img", ["WOMEN"])
    assert "no images: found neither img/WOMEN nor Img/img/WOMEN." in str(raised.value)
    touch(tmp_path / "Img" / "img.zip")
    with pytest.raises(UserError, match=r"Img/img\.zip is not unpacked: unzip it in .*/Img"):
        find_images(tmp_path, "img", ["WOMEN"])


def test_verticals_are_lower_case_words_without_separators_of_groups():
    names = ["WOMEN_Blouses_Shirts", "short sleeve top", "a+b, c/d", "Été-Robe", "(x)", "ÄÖ"]
    assert [to_vertical(name) for name in names] == [
        *("women_blouses_shirts", "short_sleeve_top", "a_b_c_d", "été_robe", "x", "äö"),
    ]
