import builtins
import csv
import datetime
import io
import json

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.tables import read_table_file

ROWS = [{"photo": "a b.jpg", "sku": "007"}, {"photo": "ä.jpg", "sku": "1e3"}]


def write(tmp_path, name, text, encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "photo,sku\na b.jpg,007\nä.jpg,1e3\n"),
        ("t.csv", "photo;sku\na b.jpg;007\nä.jpg;1e3\n"),
        ("t.CSV", '"photo";"sku"\r\n"a b.jpg";"007"\r\n"ä.jpg";"1e3"\r\n'),
        ("t.txt", "photo|sku\na b.jpg|007\nä.jpg|1e3"),
        ("t.tsv", "photo\tsku\na b.jpg\t007\nä.jpg\t1e3\n"),
        ("t.csv", "photo\tsku\na b.jpg\t007\nä.jpg\t1e3\n"),
        ("t.csv", "\ufeffphoto,sku\r\na b.jpg,007\r\nä.jpg,1e3"),
        ("t.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("t.ndjson", "\ufeff" + "\r\n".join(map(json.dumps, ROWS)) + "\r\n"),
    ],
)
def test_all_text_formats_give_the_same_table(tmp_path, name, text):
    read = read_table_file(write(tmp_path, name, text))

    assert read.table.to_pylist() == ROWS
    first = 1 if "json" in name else 2
    assert read.rows.tolist() == [first, first + 1]
    assert read.notes == ()


def test_parquet_is_read_as_text_without_binary_columns(tmp_path):
    table = pa.table({"photo": ["a.jpg", None], "sku": [7, 8], "bytes": [b"\xff", b""]})
    pq.write_table(table, tmp_path / "t.parquet")
    read = read_table_file(tmp_path / "t.parquet")

    assert read.table.to_pylist() == [{"photo": "a.jpg", "sku": "7"}, {"photo": "", "sku": "8"}]
    assert read.rows.tolist() == [1, 2]
    assert read.notes == ("left out: columns of lists, objects or bytes: bytes",)


def test_a_comma_in_a_quoted_name_does_not_count_as_delimiter(tmp_path):
    read = read_table_file(write(tmp_path, "t.csv", '"name, long, wide";sku\na;1\n'))
    assert read.table.column_names == ["name, long, wide", "sku"]


def test_row_numbers_are_lines_even_with_blank_lines_and_multi_line_cells(tmp_path):
    text = 'photo,sku\n\n"a\n\nb.jpg",1\n\nc.jpg,2\n'
    assert read_table_file(write(tmp_path, "t.csv", text)).rows.tolist() == [3, 7]
    lines = "\n".join(["", json.dumps(ROWS[0]), "  ", json.dumps(ROWS[1]), ""])
    assert read_table_file(write(tmp_path, "t.jsonl", lines)).rows.tolist() == [2, 4]


def test_a_column_without_a_name_is_left_out(tmp_path):
    read = read_table_file(write(tmp_path, "t.csv", ",photo\n0,a.jpg\n1,b.jpg\n"))
    assert read.table.to_pylist() == [{"photo": "a.jpg"}, {"photo": "b.jpg"}]
    assert read.notes == ("left out: columns without a name: 1",)


def test_json_texts_that_look_like_dates_stay_and_lists_are_left_out(tmp_path):
    rows = [
        {"sku": 7, "day": "2020-01-01", "sale": True, "sizes": ["S"], "shop": {"id": 1}},
        {"sku": None, "day": "2021-02-03 10:00:00"},
    ]
    read = read_table_file(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert read.table.to_pylist() == [
        {"sku": "7", "day": "2020-01-01", "sale": "true"},
        {"sku": "", "day": "2021-02-03 10:00:00", "sale": ""},
    ]
    assert read.notes == ("left out: columns of lists, objects or bytes: sizes, shop",)


@pytest.mark.parametrize(
    "ids",
    [
        ["1610521604143693812", "1610521604143693813", "3"],
        ["1610521604143693812", "1610521604143693813", "3.0"],
        ["12345678901234567890", "12345678901234567891", "3"],
        ["4006381333930", "4006381333931.0", "1e3"],
        ["4006381333930", "NaN", "null"],
    ],
)
def test_numbers_in_json_are_read_digit_by_digit_and_nan_is_missing(tmp_path, ids):
    text = "".join(f'{{"sku": {number}, "x_min": 1.50}}\n' for number in ids) + "{}\n"
    read = read_table_file(write(tmp_path, "t.jsonl", text))
    written = ["" if number in ("NaN", "null") else number for number in ids]
    assert read.table["sku"].to_pylist() == [*written, ""]
    assert read.table["x_min"].to_pylist() == ["1.50"] * len(ids) + [""]


def test_mixed_json_columns_are_read_as_text(tmp_path):
    text = (
        '{"a": null}\n{"a": 1}\n{"b": 1.50}\n{"a": "x", "b": true}\n{"a": "007", "b": -Infinity}\n'
    )
    read = read_table_file(write(tmp_path, "t.jsonl", text))
    assert read.table["a"].to_pylist() == ["", "1", "", "x", "007"]
    assert read.table["b"].to_pylist() == ["", "", "1.50", "true", "-Infinity"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "is empty; expected a header"),
        ("t.csv", "a,b\n", "the table is empty"),
        ("t.csv", "a,b\n1,2\n\n1,2,3\n", "row 4: 3 cells, but the header has 2"),
        ("t.csv", "a,a\n1,2\n", "column 'a' appears twice"),
        ("t.csv", "a,b\nä,1\n".encode("latin-1"), "row 2: not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "row 1: not UTF-8"),
        ("t.jsonl", "", "the table is empty"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "row 2: invalid JSON"),
        ("t.jsonl", '{"a": 1}\n\n[1]\n', "row 3: expected a JSON object"),
        ("t.jsonl", '[{"a": 1}]', "row 1: expected a JSON object"),
        ("t.jsonl", '{"a": "\\ud800"}\n', "row 1: invalid JSON: .*surrogates not allowed"),
        ("t.jsonl", '{"a": 1, "a": 2}\n', "row 1: invalid JSON: 'a' appears twice"),
        ("t.jsonl", '{"a": 1}\n{"a": 2} {"a": 3}\n', "row 2: invalid JSON: Extra data"),
        ("t.jsonl", '{"a": 1}\n{"a":\n2}\n{"a": 3}\n', "row 2: invalid JSON: Expecting value"),
        ("t.jsonl", '{"a": "ä"}\n'.encode("latin-1"), "row 1: not UTF-8"),
        ("t.parquet", "no parquet", "cannot be read as Parquet"),
        ("t.xlsx", "PK", "cannot be read as an Excel workbook: File is not a zip file"),
        ("t.xls", "PK", "not a table file; expected one of .csv"),
    ],
)
def test_errors_name_file_and_row_in_one_line(tmp_path, name, text, message):
    path = write(tmp_path, name, text)
    with pytest.raises(UserError, match=message) as caught:
        read_table_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "UTF-16LE", "utf8", "latin-1"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "photo;sku\r\na b.jpg;007\r\nä.jpg;1e3\r\n"),
        ("t.txt", "photo\tsku\n\na b.jpg\t007\nä.jpg\t1e3"),
        ("t.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    ],
)
def test_other_encodings_give_the_same_table(tmp_path, name, text, encoding):
    read = read_table_file(write(tmp_path, name, text, encoding), encoding)
    assert read.table.to_pylist() == ROWS
    first = {"t.csv": 2, "t.txt": 3, "t.jsonl": 1}[name]
    assert read.rows.tolist() == [first, first + 1]


@pytest.mark.parametrize(
    ("name", "content", "encoding", "message"),
    [
        ("t.csv", b"a,b\n1,2\n\x81,3\n", "cp1252", "row 3: not CP1252 text; save the"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16") + b"1", "utf-16", "row 3: not UTF-16 text"),
        ("t.jsonl", b'{"a": 1}\n{"a": "\x81"}\n', "cp1252", "row 2: not CP1252 text"),
        ("t.csv", b"a,b\n1,2\n", "klingon", "--encoding=klingon is unknown; expected a"),
        ("t.csv", b"a,b\n1,2\n", "base64", "--encoding=base64 is unknown"),
        ("t.parquet", b"", "cp1252", "--encoding=cp1252 applies to text files only"),
        ("t.xlsx", b"", "utf-16", "--encoding=utf-16 applies to text files only"),
        ("t.csv", "a,b\nä,2\n".encode("cp1252"), "utf-8", "import it with its --encoding"),
    ],
)
def test_a_wrong_encoding_is_an_error(tmp_path, name, content, encoding, message):
    with pytest.raises(UserError, match=message):
        read_table_file(write(tmp_path, name, content), encoding)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_an_unreadable_table_gives_a_one_line_error(tmp_path, name, monkeypatch):
    path = write(tmp_path, name, "a")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    # Simulated, since root may read everything.
    for module in (builtins, pq):
        for opener in ("open", "ParquetFile"):
            if hasattr(module, opener):
                monkeypatch.setattr(module, opener, refuse)
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_table_file(path)
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{path}: cannot be read")
    assert str(caught.value).count("\n") == 0
    assert "ermission denied" in str(caught.value)


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"none.csv: no such table"):
        read_table_file(tmp_path / "none.csv")
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(UserError, match="not a table file"):
        read_table_file(tmp_path / "dir.csv")


# Without surrogates, which cannot be encoded, and line endings that csv changes.
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=9)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1), delimiter=st.sampled_from(",;\t|"))
def test_any_text_survives_and_row_numbers_are_first_lines(tmp_path_factory, rows, delimiter):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    lines = []
    for row in [("photo", "sku"), *rows]:
        lines.append(file.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = write(tmp_path_factory.mktemp("csv"), "t.csv", file.getvalue())
    read = read_table_file(path)
    assert list(zip(read.table["photo"].to_pylist(), read.table["sku"].to_pylist())) == rows
    assert read.rows.tolist() == lines[1:]


def write_sheets(tmp_path, rows, formats=None, sheets=("Stock",)):
    """Writes rows to the first sheet of a workbook; returns its path."""
    book = openpyxl.Workbook()
    book.active.title = sheets[0]
    for name in sheets[1:]:
        book.create_sheet(name).append(["other"])
    for row in rows:
        book.active.append(row)
    for cell, form in (formats or {}).items():
        book.active[cell].number_format = form
    book.save(tmp_path / "t.xlsx")
    return tmp_path / "t.xlsx"


def test_excel_cells_and_row_numbers_are_as_excel_shows_them(tmp_path):
    rows = [
        [],
        ["image", "sku", None, "price", "day", "sale"],
        ["a b.jpg", 7, "x", 12.5, datetime.date(2020, 1, 2), True],
        [],
        ["ä.jpg", "007", None, 3.0, None, False],
        ["c.jpg", 4006381333930, None, None, "#N/A", None],
    ]
    read = read_table_file(write_sheets(tmp_path, rows, {"B3": "00000"}, ("Stock", "Notes")))
    assert read.table.to_pydict() == {
        "image": ["a b.jpg", "ä.jpg", "c.jpg"],
        "sku": ["00007", "007", "4006381333930"],
        "price": ["12.5", "3", ""],
        "day": ["2020-01-02 00:00:00", "", "#N/A"],
        "sale": ["true", "false", ""],
    }
    assert read.rows.tolist() == [3, 5, 6]
    assert read.notes == (
        "left out: columns without a name: 1",
        "left out: sheets other than Stock: Notes",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the first sheet is empty; expected a header row"),
        ([["image", "sku"]], "the table is empty"),
        ([["sku", "sku"], ["1", "2"]], "column 'sku' appears twice"),
        ([["image", "sku"], ["a", 1], ["b", 10**15]], "row 3: column B: 1000000000000000; Excel"),
        ([["image", "sku"], ["a", 1.6105216041436938e18]], "row 2: column B: 1.61.*as text and"),
    ],
)
def test_an_unusable_sheet_gives_a_one_line_error(tmp_path, rows, message):
    path = write_sheets(tmp_path, rows)
    with pytest.raises(UserError, match=message) as caught:
        read_table_file(path)
    assert str(caught.value).startswith(f"{path}: ") and "workbook" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corrupt_workbook_is_an_error(tmp_path):
    path = write_sheets(tmp_path, [["image"], ["a.jpg"]])
    content = path.read_bytes()
    for broken in (
        content[: len(content) // 2],
        content.replace(b"xl/workbook.xml", b"xl/workb00k.xml"),
    ):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="cannot be read as an Excel workbook"):
            read_table_file(path)
