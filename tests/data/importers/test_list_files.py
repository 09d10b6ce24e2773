import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers import list_files
from apparel_embed.data.importers.list_files import boxes_of, listed_boxes, read_list

COLUMNS = {"image_name": True, "item_id": False, "evaluation_status": False}
HEADER = "image_name item_id evaluation_status"
BOX_COLUMNS = {"image_name": True, **dict.fromkeys(("type", "x_1", "y_1", "x_2", "y_2"), False)}
BOX_HEADER = " ".join(BOX_COLUMNS)


def write(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def read(tmp_path, text, columns=COLUMNS, **how):
    return read_list(write(tmp_path, text), columns, **how)


def fails(tmp_path, text, message, columns=COLUMNS, **how):
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / 'list.txt'))}: ") as raised:
        read(tmp_path, text, columns, **how)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cells_are_split_at_any_white_space_and_rows_are_lines(tmp_path):
    listed = read(
        tmp_path,
        f"3\n{HEADER}\nimg/a.jpg      id_1 train      \n\n"
        "\timg/b.JPEG\t\tid_02   query\nc.png d e\n",
    )
    assert listed.table.to_pydict() == {
        "image_name": ["img/a.jpg", "img/b.JPEG", "c.png"],
        "item_id": ["id_1", "id_02", "d"],
        "evaluation_status": ["train", "query", "e"],
        "source_row": [3, 5, 6],
    }
    assert listed.table.schema.field("source_row").type == pa.int64()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_of_every_system_and_a_bom_are_accepted(tmp_path, end, last):
    text = end.join(["2", HEADER, "img/a.jpg id_1 train", "img/b.jpg id_2 train"]) + last * end
    listed = read(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert listed.table["image_name"].to_pylist() == ["img/a.jpg", "img/b.jpg"]
    assert listed.table["evaluation_status"].to_pylist() == ["train", "train"]
    assert listed.table["source_row"].to_pylist() == [3, 4]


def test_paths_may_hold_spaces_and_any_letters(tmp_path):
    columns = {"one": True, "two": True, "item": False}
    listed = read(
        tmp_path,
        "2\none two item\n"
        "img/Été 2016/a  b.jpg   img/ドレス/shop 1.webp id_1\n"
        "img/v1.2 x/a.jpg img/b.jpg id_2\n",
        columns,
    )
    assert listed.table["one"].to_pylist() == ["img/Été 2016/a  b.jpg", "img/v1.2 x/a.jpg"]
    assert listed.table["two"].to_pylist() == ["img/ドレス/shop 1.webp", "img/b.jpg"]
    assert listed.table["item"].to_pylist() == ["id_1", "id_2"]


words = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=6)
names = st.lists(words, min_size=1, max_size=3).map(lambda parts: f"{' '.join(parts)}.jpg")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(names, words), min_size=1, max_size=5), pad=st.integers(1, 9))
def test_what_is_written_is_read(tmp_path_factory, rows, pad):
    # ".jpg" within a path ends it, by design.
    rows = [(name, item) for name, item in rows if ".jpg " not in name] or [("a.jpg", "b")]
    body = "".join(f"{name}{' ' * pad}{item} train{' ' * pad}\n" for name, item in rows)
    listed = read(tmp_path_factory.mktemp("list"), f"{len(rows)}\n{HEADER}\n{body}")
    read_rows = zip(*(listed.table[name].to_pylist() for name in ("image_name", "item_id")))
    assert list(read_rows) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("3\n", "row 2: columns (none); expected: image_name item_id evaluation_status"),
        ("1\nimage_name item_id\na.jpg 1 train\n", "row 2: columns image_name item_id; expected"),
        (f"{HEADER}\na.jpg 1 train\n", "row 2: columns a.jpg 1 train; expected"),
        (f"many\n{HEADER}\na.jpg 1 train\n", "row 1: 'many'; the number of rows is expected"),
        (f"3\n{HEADER}\na.jpg 1 train\nb.jpg 1 train\n", "row 1: says 3 rows, but 2 follow"),
        (f"1\n{HEADER}\na.jpg 1 train\nb.jpg 1 train\n", "row 1: says 1 rows, but 2 follow"),
        (f"3\n{HEADER}\na.jpg 1 train\nb.jp", "row 1: says 3 rows, but 2 follow"),
        (f"2\n{HEADER}\na.jpg 1 train\nb.jpg 1\n", "row 4: 'b.jpg 1': 2 words, but 3 columns"),
        (f"2\n{HEADER}\na.jpg 1 train\n\nb.jpg 1 2 train\n", "row 5: 'b.jpg 1 2 train': 4 words"),
        (f"1\n{HEADER}\na.txt 1 train\n", "row 3: 'a.txt 1 train': 3 words, but 3 columns are"),
        (f"1\n{HEADER}\n{'a' * 999} 1 train\n", f"row 3: '{'a' * 117}...': 3 words"),
        (b"1\n" + HEADER.encode() + b"\n\xff.jpg 1 train\n", "row 3: is not UTF-8 text"),
        ("1\n".encode("utf-16"), "row 1: is not UTF-8 text"),
        (f"0\n{HEADER}\n", "no row follows the names of the columns"),
        (f"{'9' * 5000}\n{HEADER}\na.jpg 1 train\n", "row 1: '999"),
        (f"1\n{HEADER}\na\x1f.jpg 1 train\n", "cannot be read as text"),
    ],
)
def test_a_broken_list_names_its_row_and_what_is_needed(tmp_path, text, message):
    fails(tmp_path, text, message)


def test_a_line_without_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(list_files, "_BLOCK", 64)
    text = f"1\n{HEADER}\na.jpg 1 {'x' * 200}\n"
    fails(tmp_path, text, "row 3: 209 bytes; at most 64 are allowed")


def test_a_list_without_count_begins_with_its_columns(tmp_path):
    listed = read(tmp_path, f"{HEADER}\na.jpg 1 train\n", counted=False)
    assert listed.table["source_row"].to_pylist() == [2]
    fails(tmp_path, f"1\n{HEADER}\na.jpg 1 train\n", "row 1: columns 1; expected", counted=False)


def test_the_first_line_may_count_something_else(tmp_path):
    text = f"1\n{HEADER}\na.jpg 1 train\na.jpg 1 train\n"

    def pictures(table):
        return len(table["image_name"].unique())

    assert read(tmp_path, text, recount=pictures).table.num_rows == 2
    fails(tmp_path, f"3{text[1:]}", "says 3 rows, but 2 follow", recount=pictures)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"list\.txt: cannot be read"):
        read_list(tmp_path / "list.txt", COLUMNS)


def test_refused_values_are_told_with_their_row(tmp_path):
    listed = read(tmp_path, f"2\n{HEADER}\na.jpg 1 train\nb.jpg 2 tset\n")
    with pytest.raises(
        UserError, match="row 4: column 'evaluation_status': 'tset'; allowed: train"
    ):
        listed.refuse_other_than("evaluation_status", ("train", "test"))


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
    listed = read(tmp_path, f"2\n{HEADER}\nimg/MEN/b.jpg 1 train\n{path} 1 train\n")
    if path == PATHS[0]:
        parts = listed.split_paths("image_name", "img/", ("gender", "picture"), PATHS[0])
        assert parts.to_pydict() == {"gender": ["MEN", "WOMEN"], "picture": ["b.jpg", "a.jpg"]}
        return
    with pytest.raises(UserError) as raised:
        listed.split_paths("image_name", "img/", ("gender", "picture"), PATHS[0])
    assert f"row 4: column 'image_name': {path!r}; a path relative to" in str(raised.value)
    assert "img/WOMEN/a.jpg" in str(raised.value)


def boxes(tmp_path, *rows):
    return read(tmp_path, f"{len(rows)}\n{BOX_HEADER}\n" + "\n".join(rows), BOX_COLUMNS)


def test_boxes_are_numbers_and_those_without_area_are_none(tmp_path):
    listed = boxes(tmp_path, "a.jpg 1 065 045 233 252", "b.jpg 1 -3 1.5 7 9", "c.jpg 1 5 5 5 9")
    table, flat = listed_boxes(listed)
    assert table.to_pydict() == {
        "x_min": [65.0, -3.0, None],
        "y_min": [45.0, 1.5, None],
        "x_max": [233.0, 7.0, None],
        "y_max": [252.0, 9.0, None],
    }
    assert flat == 1


@pytest.mark.parametrize("value", ["x", "1e3", "nan", "inf", "1,5", "--1", "0x1f"])
def test_a_box_that_is_no_number_is_told_with_its_row(tmp_path, value):
    listed = boxes(tmp_path, "a.jpg 1 1 2 3 4", f"b.jpg 1 1 2 {value} 4")
    with pytest.raises(UserError) as raised:
        listed_boxes(listed)
    assert f"row 4: column 'x_2': {value!r}; a number of pixels is needed" in str(raised.value)


def test_each_picture_gets_its_box_whatever_the_order(tmp_path):
    listed = boxes(tmp_path, "b.jpg 1 5 6 7 8", "a.jpg 1 1 2 3 4", "c.jpg 1 1 1 1 1")
    images = pa.chunked_array([["a.jpg", "d.jpg"], ["b.jpg", "a.jpg"]])
    table, notes = boxes_of(images, listed, "image_name")
    assert table["x_min"].to_pylist() == [1.0, None, 5.0, 1.0]
    assert table["y_max"].to_pylist() == [4.0, None, 8.0, 4.0]
    assert notes == [
        f"{listed.path}: pictures that it has no box for: 1",
        f"{listed.path}: boxes without area, left out: 1",
    ]


def test_a_picture_with_two_boxes_is_told_with_both_rows(tmp_path):
    listed = boxes(tmp_path, "a.jpg 1 1 2 3 4", "b.jpg 1 1 2 3 4", "a.jpg 1 1 2 3 4")
    with pytest.raises(UserError, match=r"row 5: column 'image_name': 'a.jpg' was in row 3"):
        boxes_of(listed.table["image_name"], listed, "image_name")
