import numpy as np
import pyarrow as pa

from apparel_embed.data.columns import codes_of, find_inconsistent, first_alike, ranked_codes_of


def test_values_are_numbered_by_first_appearance_across_chunks():
    column = pa.chunked_array([["b", "a"], [], ["c", "b"], ["a", "d"]])
    codes, values = codes_of(column)
    assert codes.tolist() == [0, 1, 2, 0, 1, 3]
    assert values.to_pylist() == ["b", "a", "c", "d"]


def test_a_column_without_rows_has_no_values():
    for column in (pa.chunked_array([], pa.string()), pa.chunked_array([[]], pa.string())):
        codes, values = codes_of(column)
        assert codes.tolist() == []
        assert values.to_pylist() == []


def test_the_first_of_equal_rows_is_found_and_nulls_are_equal():
    side = [1.5, None, 1.5, None, 2.5, 1.5, None]
    columns = {"image": list("abababb"), "item": list("1212113"), "x": pa.array(side)}
    table = pa.table(columns)
    chunks = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert first_alike(chunks, ["image"]).tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert first_alike(chunks, ["image", "item"]).tolist() == [0, 1, 0, 1, 0, 5, 6]
    assert first_alike(chunks, ["image", "x"]).tolist() == [0, 1, 0, 1, 4, 5, 1]
    for rows in (table.slice(0, 2), table.slice(0, 0)):
        assert first_alike(rows, list(columns)).tolist() == list(range(rows.num_rows))


def test_rows_whose_value_differs_from_their_items_first_are_found():
    items = np.array([2, 0, 1, 0, 2, 2, 0])
    values = np.array([5, 6, 7, 6, 8, 5, 9])
    assert find_inconsistent(items, values).tolist() == [4, 6]
    assert find_inconsistent(items, items).tolist() == []
    assert find_inconsistent(np.empty(0, int), np.empty(0, int)).tolist() == []


def test_ranked_values_are_numbered_in_sorted_order():
    column = pa.chunked_array([["é", "B"], [], ["a", "é"], ["Z", "10", "9"]])
    codes, values = ranked_codes_of(column)
    assert values.to_pylist() == sorted(set(column.to_pylist()))
    assert [values[code].as_py() for code in codes] == column.to_pylist()
    codes, values = ranked_codes_of(pa.chunked_array([[30, -5, 30]]))
    assert (codes.tolist(), values.to_pylist()) == ([1, 0, 1], [-5, 30])
    assert ranked_codes_of(pa.chunked_array([], pa.string()))[0].tolist() == []
