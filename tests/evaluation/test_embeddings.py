from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings, write_embeddings


@given(
    st.data(),
    st.lists(st.integers(0, 2**62), unique=True, max_size=20),
    st.integers(1, 5),
)
@settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_embeddings_are_read_back_bit_by_bit_in_record_order(tmp_path, data, records, dim):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    values = data.draw(arrays.arrays(np.float32, (len(records), dim), elements=finite))
    records = np.array(records, np.int64)
    write_embeddings(tmp_path / "e.parquet", records, values)
    got_records, got_values = read_embeddings(tmp_path / "e.parquet")
    order = np.argsort(records)
    assert got_records.dtype == np.int64 and got_values.dtype == np.float32
    np.testing.assert_array_equal(got_records, records[order])
    assert got_values.shape == (len(records), dim)
    assert got_values.tobytes() == values[order].tobytes()


def test_the_file_has_the_documented_columns_and_order(tmp_path):
    path = tmp_path / "deep" / "e.parquet"
    write_embeddings(path, np.array([9, 2]), np.array([[1, 2, 3], [4, 5, 6]]))
    table = pq.read_table(path)
    assert table.column_names == ["record", "embedding"]
    assert table.schema.field("record").type == pa.int64()
    kind = table.schema.field("embedding").type
    assert pa.types.is_fixed_size_list(kind)
    assert kind.value_type == pa.float32() and kind.list_size == 3
    assert table.to_pylist() == [
        {"record": 2, "embedding": [4.0, 5.0, 6.0]},
        {"record": 9, "embedding": [1.0, 2.0, 3.0]},
    ]
    assert [file.name for file in path.parent.iterdir()] == ["e.parquet"]


def test_the_same_embeddings_give_the_same_bytes(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 8))
    write_embeddings(tmp_path / "a", np.arange(50), values)
    write_embeddings(tmp_path / "b", np.arange(50)[::-1], values[::-1])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_with_many_row_groups_extra_columns_and_any_order_are_read(tmp_path):
    path = tmp_path / "e.parquet"
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    table = pa.table(
        {
            "extra": ["x"] * 20,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2),
            "record": np.arange(20)[::-1],
        }
    )
    pq.write_table(table, path, row_group_size=3)
    records, got = read_embeddings(path)
    assert records.tolist() == list(range(20))
    np.testing.assert_array_equal(got, values[::-1])


@pytest.mark.parametrize(
    ("records", "values", "message"),
    [
        ([1, 2, 1], np.ones((3, 2)), "record 1 occurs more than once"),
        ([1, -2], np.ones((2, 2)), "record -2 is negative"),
        ([1, 2], [[1, 2], [np.nan, 0]], "1 of 2 embeddings.*record 2"),
        ([1, 2], [[1e300, 2], [3, 4]], "1 of 2 embeddings.*infinite.*record 1"),
        ([1, 2], np.ones((3, 2)), "records of shape"),
        ([1], np.ones((1, 0)), "dim at least 1"),
        ([1], np.ones(1), "dim at least 1"),
        ([1.5], np.ones((1, 2)), "records are float64"),
    ],
)
def test_invalid_arrays_are_refused_and_leave_an_existing_file_unchanged(
    tmp_path, records, values, message
):
    path = tmp_path / "e.parquet"
    write_embeddings(path, np.array([7]), np.ones((1, 2)))
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        write_embeddings(path, np.array(records), np.array(values))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


VECTORS = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"record": [0, 1]}, "0 columns named 'embedding' among \\['record'\\]"),
        ({"embedding": VECTORS}, "0 columns named 'record'"),
        ({"record": ["0", "1"], "embedding": VECTORS}, "'record' is string; expected int64"),
        (
            {"record": [0, 1], "embedding": pa.array([[1.0], [2.0]], pa.list_(pa.float32()))},
            "'embedding' is list.*expected fixed_size_list<float32>",
        ),
        (
            {"record": [0, 1], "embedding": VECTORS.cast(pa.list_(pa.float64(), 2))},
            "double.*expected fixed_size_list<float32>",
        ),
        ({"record": [3, 3], "embedding": VECTORS}, "record 3 occurs more than once"),
        ({"record": [-1, 3], "embedding": VECTORS}, "record -1 is negative"),
        ({"record": pa.array([0, None]), "embedding": VECTORS}, "1 null values"),
        (
            # Some releases of pyarrow cannot even read this; either way the error names the file.
            {"record": [0, 1], "embedding": pa.array([[1.0, 2.0], None], VECTORS.type)},
            "(1 null values|cannot be read as Parquet)",
        ),
        (
            {"record": [0, 1], "embedding": pa.array([[1.0, None], [2.0, 3.0]], VECTORS.type)},
            "1 null values",
        ),
        (
            {"record": [8, 9], "embedding": pa.array([[1.0, 2.0], [np.nan, 0]], VECTORS.type)},
            "1 of 2 embeddings.*record 9",
        ),
    ],
)
def test_errors_name_files_with_invalid_content(tmp_path, columns, message):
    path = tmp_path / "others.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=f"others.parquet: .*{message}"):
        read_embeddings(path)


def test_missing_and_non_parquet_files_give_different_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_embeddings(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("record,embedding\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_embeddings(tmp_path / "text.parquet")
    with pytest.raises(UserError, match=r"a directory without embeddings-\*.parquet"):
        read_embeddings(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "e.parquet"
    write_embeddings(path, np.arange(100), np.ones((100, 4)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_embeddings(path)
