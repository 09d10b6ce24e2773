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
    # Two chunks, as of a file of several blocks.
    return pa.concat_tables([table.slice(0, 1), table.slice(1)])


def derived(table, **options):
    rows = Rows(table, Path("shop"), {})
    derive(rows, DeriveOptions(**options))
    return rows.table.select(rows.names).to_pydict(), tuple(rows.notes)


def test_groups_of_the_pattern_become_columns_in_place_of_others():
    table = table_of(image=["a/mh1-red.jpg", "ws22-blue.jpg"], kind=["x", "y"])
    found, notes = derived(table, pattern=r"(?P<sku>(?P<kind>[a-z]+)\d+)-(?P<colour>\w+)")

    assert found == {
        "image": ["a/mh1-red.jpg", "ws22-blue.jpg"],
        "kind": ["mh", "ws"],
        "sku": ["mh1", "ws22"],
        "colour": ["red", "blue"],
    }
    assert notes == ()


def test_the_pattern_searches_what_becomes_the_image_or_the_column_named():
    table = table_of(url=["http://x/1.jpg", "http://x/2.jpg"], sku=["A1", "B2"])
    by_image, _ = derived(table, pattern=r"(?P<n>\d+)\.", columns={"image": "url"})
    by_column, _ = derived(table, pattern="(?P<n>[A-Z])", pattern_column="sku")

    assert by_image["n"] == ["1", "2"]
    assert by_column["n"] == ["A", "B"]


def test_a_group_that_takes_no_part_is_empty():
    found, _ = derived(table_of(image=["a1.jpg", "a.jpg"]), pattern=r"^a(?P<n>\d+)?")
    assert found["n"] == ["1", ""]


def test_rows_without_a_match_are_an_error_or_left_out():
    table = table_of(image=["a1.jpg", "logo.jpg", "b2.jpg", "size.jpg"])
    message = (
        r"^shop/t.csv: row 3: column 'image': 'logo.jpg'; it does not match .* \(2 of 4 rows d"
    )
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
        (r"(\d+)", r"every group needs a name, \(\?P<name>...\)"),
        (r"\d+", "has no group"),
        ("(?P<a>x)(?P<a>y)", "two groups 'a'"),
        ("(?P<source_row>x)", "'source_row' has a reserved name"),
        ("(?=x)(?P<a>y)", "invalid perl operator"),
    ],
)
def test_a_wrong_pattern_is_refused_with_the_reason(pattern, message):
    with pytest.raises(UserError, match=message) as caught:
        derived(table_of(image=["x"]), pattern=pattern)
    assert str(caught.value).startswith(f"--pattern={pattern}")
    assert "\n" not in str(caught.value)


def test_columns_get_other_names_and_templates_join_them():
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
        # What is known by half gets no name, lest it share one with others.
        "item_id": ["s-red", ""],
        "style_id": ["s", "t"],
        "code": ["s", "t"],
    }


def test_names_may_be_swapped_or_replace_others():
    table = table_of(a=["1"], b=["2"])
    assert derived(table, columns={"a": "b", "b": "a"})[0] == {"a": ["2"], "b": ["1"]}
    assert derived(table, columns={"a": "b"})[0] == {"a": ["2"]}
    assert derived(table, columns={"a": "{b}"})[0] == {"a": ["2"], "b": ["2"]}
    assert derived(table, columns={"a": "a"})[0] == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "foto"}, r"^--columns=image:foto: no column 'foto'; there are photo, sku$"),
        ({"image": "{foto}.jpg"}, r"image:\{foto\}.jpg: no column 'foto'"),
        ({"image": "{photo"}, "is not allowed: "),
        ({"image": "{photo!r}"}, "in braces only a column's name"),
        ({"image": "{photo:>9}"}, "in braces only a column's name"),
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
def test_a_box_is_no_text(options, flag):
    table = table_of(image=["a.jpg", "b.jpg"], x_min=[1.5, 2.5])
    with pytest.raises(UserError) as error:
        derived(table, **options)
    assert str(error.value) == f"{flag}: column 'x_min' holds numbers; name one that holds texts"
    swapped, _ = derived(table, columns={"x_max": "x_min"})
    assert swapped == {"image": ["a.jpg", "b.jpg"], "x_max": [1.5, 2.5]}


def test_a_pattern_of_a_column_that_is_not_there_is_refused():
    with pytest.raises(
        UserError,
        match=r"^--pattern \(--pattern_column names another\): no column 'image'; there are url",
    ):
        derived(table_of(url=["x"]), pattern="(?P<a>x)")
    with pytest.raises(UserError, match=r"^--pattern_column: no column 'sku'; there are url"):
        derived(table_of(url=["x"]), pattern="(?P<a>x)", pattern_column="sku")


def test_each_image_of_a_cell_becomes_a_row_in_its_order():
    table = table_of(photos=["a.webp | b.webp|", "", "||c.webp", "d.webp"], sku=[*"1234"])
    found, notes = derived(table, image_separator="|", columns={"image": "photos"})
    assert found == {
        "sku": ["1", "1", "2", "3", "4"],
        "image": ["a.webp", "b.webp", "", "c.webp", "d.webp"],
    }
    assert notes == ("rows with several images, now one each: 1",)
    table = table_of(image=["x/1_a.jpg; x/2_b.jpg"], sku=["1"])
    found, _ = derived(table, image_separator=";", pattern=r"(?P<view>[a-z])\.jpg")
    assert found["view"] == ["a", "b"]


@pytest.mark.parametrize("box", ["5", 5.0])
def test_a_box_is_of_one_image(box):
    edges = {name: [None, box] for name in ("left", "y_min", "x_max", "y_max")}
    table = table_of(image=["a|b", "c"], **edges)
    columns = {"x_min": "left"}
    assert derived(table, image_separator="|", columns=columns)[0]["image"] == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"row 3: column 'left': '5'; a box is of one image, but"):
        derived(table_of(image=["c", "a|b"], **edges), image_separator="|", columns=columns)


def test_what_separates_images_must_be_named_and_there_must_be_a_column():
    with pytest.raises(UserError, match=r"--image_separator= is not allowed"):
        derived(table_of(image=["a", "b"]), image_separator="")
    with pytest.raises(UserError, match=r"--image_separator=\|: no column 'image'; there are sku"):
        derived(table_of(sku=["a", "b"]), image_separator="|")
