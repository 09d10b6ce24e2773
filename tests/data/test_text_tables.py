import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.text_tables import (
    all_rows_in_file,
    as_texts,
    count_lines,
    read_csv,
    rows_in_file,
    undecodable_row,
)


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
def test_a_row_number_is_its_first_line(tmp_path, text, rows):
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
def test_the_last_line_counts_with_or_without_a_line_ending(tmp_path, content, lines):
    assert count_lines(write(tmp_path, content)) == lines


def test_the_error_names_the_row_that_cannot_be_read(tmp_path):
    path = write(tmp_path, "a,b\nä,1\n".encode("latin-1"))
    assert undecodable_row(path) == 2
    with pytest.raises(UserError, match=r"t.csv: row 2: not UTF-8 text"):
        read_csv(path)
    assert undecodable_row(write(tmp_path, "ä\n")) is None

    # pyarrow fails at the missing cell; the csv module, which finds its row, at the long one.
    path = write(tmp_path, f"a,b\n1,2\n{'x' * 200_000},1\n3\n")
    with pytest.raises(UserError, match=r"t.csv: row 3: cannot be read as CSV: field larger than"):
        read_csv(path)


def texts_of(values, name="item_id", kind=None):
    table = pa.table({name: pa.array(values, kind)})
    return as_texts("t.parquet", table)[name].to_pylist()


EAN = 4006381333930


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.uint64(), pa.decimal128(20, 0)])
def test_whole_numbers_of_any_type_read_as_integers(kind):
    assert texts_of([7, EAN, None, 2**53 - 1], kind=kind) == [
        *("7", str(EAN), ""),
        "9007199254740991",
    ]


def test_nan_is_a_missing_value_in_any_floating_point_type():
    for kind in (np.float16, np.float32, np.float64):
        assert texts_of(np.array([7, np.nan, -0.0, 2000], kind)) == ["7", "", "0", "2000"]
    assert texts_of(np.array([7, np.nan])) == texts_of([7, None], kind=pa.float64())
    assert texts_of([np.nan, None], kind=pa.float64()) == ["", ""]
    categories = pa.array([7.0, EAN]).dictionary_encode()
    assert texts_of(categories) == ["7", str(EAN)]


def test_numbers_in_other_columns_keep_their_fractions():
    assert texts_of([12.5, 3.0, np.nan, 1e-7], "price") == ["12.5", "3", "", "1e-7"]
    assert texts_of(np.array([0.1, 3], np.float32), "price") == ["0.1", "3"]


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (np.array([1, 2.0**53]), "item_id", "row 2: column 'item_id': 9007199254740992.0; double "),
        (np.array([2.0**53]), "style", "row 1: .*double is exact .* below 9007199254740992;"),
        (np.array([1, 2, 2**24], np.float32), "style", "row 3: .*float .* below 16777216;"),
        (np.array([2048], np.float16), "style", "row 1: .*halffloat is exact .* below 2048;"),
        (np.array([-np.inf]), "style", "row 1: column 'style': -inf"),
        (np.array([np.nan, 7.5]), "item_id", "row 2: column 'item_id': 7.5; expected text"),
        (np.array([7.5]), "vertical", "row 1: column 'vertical': 7.5; expected text"),
    ],
)
def test_inexact_or_fractional_numbers_as_names_are_refused(values, name, message):
    with pytest.raises(UserError, match=f"^t.parquet: {message}"):
        texts_of(values, name)


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1))
def test_every_exact_whole_number_keeps_all_its_digits(numbers):
    assert texts_of(np.array(numbers, np.float64)) == [str(number) for number in numbers]
