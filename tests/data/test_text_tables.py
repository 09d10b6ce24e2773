import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apparel_embed.data.text_tables import (
    all_rows_in_file,
    count_lines,
    read_csv,
    rows_in_file,
    undecodable_row,
)
from apparel_embed.errors import UserError


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("image\na\nb\nc", [2, 3, 4]),
        ("image\r\na\r\nb\r\nc\r\n", [2, 3, 4]),
        ("image\ra\rb\rc\r", [2, 3, 4]),
        ('image\n\na\n"b\n\nb"\n\nc\n', [3, 4, 8]),
    ],
)
def test_a_row_stands_where_it_begins(tmp_path, text, rows):
    path = write(tmp_path, text)

    assert read_csv(path).num_rows == 3
    assert all_rows_in_file(path, 3).tolist() == rows
    assert rows_in_file(path, [2, 0, 1]) == [rows[2], rows[0], rows[1]]
    assert rows_in_file(path, []) == []


def test_rows_of_parquet_are_numbered_from_1(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": ["a", "b"]}), path)

    assert all_rows_in_file(path, 2).tolist() == rows_in_file(path, [0, 1]) == [1, 2]


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\nb", 2)]
)
def test_the_last_line_counts_with_or_without_an_end(tmp_path, content, lines):
    assert count_lines(write(tmp_path, content)) == lines


def test_the_row_that_cannot_be_read_is_named(tmp_path):
    path = write(tmp_path, "a,b\nä,1\n".encode("latin-1"))
    assert undecodable_row(path) == 2
    with pytest.raises(UserError, match=r"t.csv: row 2: is not UTF-8 text"):
        read_csv(path)
    assert undecodable_row(write(tmp_path, "ä\n")) is None

    # The csv module, which finds the rows, bounds cells; pyarrow stumbles over the missing one.
    path = write(tmp_path, f"a,b\n1,2\n{'x' * 200_000},1\n3\n")
    with pytest.raises(UserError, match=r"t.csv: row 3: cannot be read as CSV: field larger than"):
        read_csv(path)
