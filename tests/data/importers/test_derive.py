from pathlib import Path

import pyarrow as pa
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.derive import DeriveOptions, derive
from apparel_embed.data.importers.rows import Rows


def table_of(**columns):
    rows = len(next(iter(columns.values())))
    table = pa.table(
        {**columns, "source_file": ["t.csv"] * rows, "source_row": list(range(2, rows + 2))}
    )
    # Two chunks, as read from a file of several blocks.
    return pa.concat_tables([table.slice(0, 1), table.slice(1)])


def derived(table, **options):
    rows = Rows(table, Path("shop"), {})
    derive(rows, DeriveOptions(**options))
    return rows.table.select(rows.names).to_pydict(), tuple(rows.notes)


def test_groups_of_the_pattern_become_columns_and_replace_existing_ones():
    table = table_of(image=["a/mh1-red.jpg", "ws22-blue.jpg"], kind=["x", "y"])
    found, notes = derived(table, pattern=r"(?P<sku>(?P<kind>[a-z]+)\d+)-(?P<colour>\w+)")

    assert found == {
        "image": ["a/mh1-red.jpg", "ws22-blue.jpg"],
        "kind": ["mh", "ws"],
        "sku": ["mh1", "ws22"],
        "colour": ["red", "blue"],
    }
    assert notes == ()


def test_the_pattern_searches_the_image_column_or_the_given_one():
    table = table_of(url=["http://x/1.jpg", "http://x/2.jpg"], sku=["A1", "B2"])
    by_image, _ = derived(table, pattern=r"(?P<n>\d+)\.", columns={"image": "url"})
    by_column, _ = derived(table, pattern="(?P<n>[A-Z])", pattern_column="sku")

    assert by_image["n"] == ["1", "2"]
    assert by_column["n"] == ["A", "B"]


def test_a_group_that_does_not_match_is_empty():
    found, _ = derived(table_of(image=["a1.jpg", "a.jpg"]), pattern=r"^a(?P<n>\d+)?")
    assert found["n"] == ["1", ""]


def test_rows_without_a_match_are_an_error_or_left_out():
    table = table_of(image=["a1.jpg", "logo.jpg", "b2.jpg", "size.jpg"])
    message = r"^shop/t.csv: row 3: column 'image': 'logo.jpg'; does not match .* \(2 of 4 rows d"
    with pytest.raises(UserError, match=message):
        derived(table, pattern=r"(?P<n>\d)")

    found, notes = derived(table, pattern=r"(?P<n>\d)", unmatched="skip")
    assert found == {"image": ["a1.jpg", "b2.jpg"], "n": ["1", "2"]}
    assert notes == ("left out: rows that do not match --pattern: 2 (e.g. logo.jpg)",)

    with pytest.raises(UserError, match=r"row 2: .*4 of 4 rows do not\)$"):
        derived(table, pattern=r"(?P<n>\d\d)", unmatched="skip")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<a", "invalid named capture group"),
        (r"(\d+)", r"name every group, \(\?P<name>...\)"),
        (r"\d+", "has no named group"),
        ("(?P<a>x)(?P<a>y)", "two groups named 'a'"),
        ("(?P<source_row>x)", "'source_row' has a reserved name"),
        ("(?=x)(?P<a>y)", "invalid perl operator"),
    ],
)
def test_a_wrong_pattern_is_refused_with_the_reason(pattern, message):
    with pytest.raises(UserError, match=message) as caught:
        derived(table_of(image=["x"]), pattern=pattern)
    assert str(caught.value).startswith(f"--pattern={pattern}")
    assert "\n" not in str(caught.value)


def test_columns_are_renamed_and_joined_by_templates():
    table = table_of(
        photo=["1.jpg", "2.jpg"], style=["s", "t"], colour=["red", ""], note=["a", "b"]
    )
    columns = {
        "image": "https://x/{photo}?a:b",
        "item_id": "{style}-{colour}",
        "style_id": "style",
        "code": "style",
        "note": "",
    }
    found, _ = derived(table, columns=columns)

    assert found == {
        "photo": ["1.jpg", "2.jpg"],
        "colour": ["red", ""],
        "image": ["https://x/1.jpg?a:b", "https://x/2.jpg?a:b"],
        # Empty, since a partly filled template could equal another row's.
        "item_id": ["s-red", ""],
        "style_id": ["s", "t"],
        "code": ["s", "t"],
    }


def test_columns_may_be_swapped_or_replaced():
    table = table_of(a=["1"], b=["2"])
    assert derived(table, columns={"a": "b", "b": "a"})[0] == {"a": ["2"], "b": ["1"]}
    assert derived(table, columns={"a": "b"})[0] == {"a": ["2"]}
    assert derived(table, columns={"a": "{b}"})[0] == {"a": ["2"], "b": ["2"]}
    assert derived(table, columns={"a": "a"})[0] == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "foto"}, r"^--columns=image:foto: no column 'foto'; found: photo, sku$"),
        ({"image": "{foto}.jpg"}, r"image:\{foto\}.jpg: no column 'foto'"),
        ({"image": "{photo"}, "is invalid: "),
        ({"image": "{photo!r}"}, "expected only a column name in braces"),
        ({"image": "{photo:>9}"}, "expected only a column name in braces"),
        ({"image": "{}"}, "no column ''"),
        ({"foto": ""}, "^--columns=foto:: no column 'foto'"),
        ({"source_row": "sku"}, "'source_row' has a reserved name"),
        ({"image": "source_row"}, "no column 'source_row'"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(UserError, match=message):
        derived(table_of(photo=["1.jpg"], sku=["1"]), columns=columns)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"columns": {"note": "{x_min}"}}, "--columns=note:{x_min}"),
        ({"columns": {"item_id": "x_min"}}, "--columns=item_id:x_min"),
        ({"pattern": "(?P<a>.)", "pattern_column": "x_min"}, "--pattern_column"),
    ],
)
def test_a_box_column_cannot_be_used_as_text(options, flag):
    table = table_of(image=["a.jpg", "b.jpg"], x_min=[1.5, 2.5])
    with pytest.raises(UserError) as error:
        derived(table, **options)
    assert str(error.value) == f"{flag}: column 'x_min' contains numbers; expected a text column"
    swapped, _ = derived(table, columns={"x_max": "x_min"})
    assert swapped == {"image": ["a.jpg", "b.jpg"], "x_max": [1.5, 2.5]}


def test_a_pattern_on_a_missing_column_is_refused():
    with pytest.raises(
        UserError,
        match=r"^--pattern \(--pattern_column selects another\): no column 'image'; found: url",
    ):
        derived(table_of(url=["x"]), pattern="(?P<a>x)")
    with pytest.raises(UserError, match=r"^--pattern_column: no column 'sku'; found: url"):
        derived(table_of(url=["x"]), pattern="(?P<a>x)", pattern_column="sku")


def test_each_image_in_a_cell_becomes_a_row_in_order():
    table = table_of(photos=["a.webp | b.webp|", "", "||c.webp", "d.webp"], sku=[*"1234"])
    found, notes = derived(table, image_separator="|", columns={"image": "photos"})
    assert found == {
        "sku": ["1", "1", "2", "3", "4"],
        "image": ["a.webp", "b.webp", "", "c.webp", "d.webp"],
    }
    assert notes == ("rows with several images, split into one row each: 1",)
    table = table_of(image=["x/1_a.jpg; x/2_b.jpg"], sku=["1"])
    found, _ = derived(table, image_separator=";", pattern=r"(?P<view>[a-z])\.jpg")
    assert found["view"] == ["a", "b"]


@pytest.mark.parametrize("box", ["5", 5.0])
def test_a_box_needs_a_single_image(box):
    edges = {name: [None, box] for name in ("left", "y_min", "x_max", "y_max")}
    table = table_of(image=["a|b", "c"], **edges)
    columns = {"x_min": "left"}
    assert derived(table, image_separator="|", columns=columns)[0]["image"] == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"row 3: column 'left': '5'; a box needs a single image"):
        derived(table_of(image=["c", "a|b"], **edges), image_separator="|", columns=columns)


def test_splitting_images_needs_a_separator_and_an_image_column():
    with pytest.raises(UserError, match=r"--image_separator=: expected the text"):
        derived(table_of(image=["a", "b"]), image_separator="")
    with pytest.raises(UserError, match=r"--image_separator=\|: no column 'image'; found: sku"):
        derived(table_of(sku=["a", "b"]), image_separator="|")
