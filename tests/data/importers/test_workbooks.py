import datetime

import openpyxl
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.table_files import read_table_file


def write(tmp_path, rows, formats=None, sheets=("Stock",)):
    """Writes rows into the first of some sheets; returns the path."""
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


def test_cells_read_as_excel_shows_them_and_rows_as_excel_counts_them(tmp_path):
    rows = [
        [],
        ["image", "sku", None, "price", "day", "sale"],
        ["a b.jpg", 7, "x", 12.5, datetime.date(2020, 1, 2), True],
        [],
        ["ä.jpg", "007", None, 3.0, None, False],
        ["c.jpg", 4006381333930, None, None, "#N/A", None],
    ]
    read = read_table_file(write(tmp_path, rows, {"B3": "00000"}, ("Stock", "Notes")))
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
        ([], "is empty; a header line and rows are needed"),
        ([["image", "sku"]], "the table is empty"),
        ([["sku", "sku"], ["1", "2"]], "column 'sku' is there twice"),
        ([["image", "sku"], ["a", 1], ["b", 10**15]], "row 3: column B: 1000000000000000; Excel"),
        ([["image", "sku"], ["a", 1.6105216041436938e18]], "row 2: column B: 1.61.*as text and"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, rows, message):
    path = write(tmp_path, rows)
    with pytest.raises(UserError, match=message) as caught:
        read_table_file(path)
    assert str(caught.value).startswith(f"{path}: ") and "workbook" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_workbook_is_told(tmp_path):
    path = write(tmp_path, [["image"], ["a.jpg"]])
    content = path.read_bytes()
    for broken in (
        content[: len(content) // 2],
        content.replace(b"xl/workbook.xml", b"xl/workb00k.xml"),
    ):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="cannot be read as an Excel workbook"):
            read_table_file(path)
