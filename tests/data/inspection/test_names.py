import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparel_embed.data.inspection.names import check_names, check_placeholders, find_alike


def alike(*names):
    places, firsts, reasons = find_alike(pa.array(names, pa.large_string()))
    return list(zip(places.tolist(), firsts.tolist(), reasons))


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("Dress", "dress", "case"),
        ("007", "7", "leading zeros"),
        ("7", "7.0", "trailing .0"),
        ("0", "00", "leading zeros"),
        ("mini skirt", "miniskirt", "white space"),
        ("sku1", "sku1 ", "white space"),
        ("sku1", "sku\u200b1", "invisible"),
        ("café", "cafe\u0301", "Unicode form"),
        ("A7", "\uff21\uff17", "Unicode form"),
        ("Ärmel", "ärmel ", "several"),
    ],
)
def test_names_that_mean_the_same_are_found_with_the_reason(first, second, reason):
    ((name, other, why),) = alike(first, second)
    assert (name, other) == (1, 0)
    assert reason in why


@pytest.mark.parametrize(
    ("first", "second"),
    [("7", "70"), ("a-0.5", "a-0.05"), ("dress", "dresses"), ("x", "y"), ("1.5", "15"), ("0", "o")],
)
def test_names_that_differ_are_left_alone(first, second):
    assert alike(first, second) == []


def test_each_name_is_matched_to_its_first_variant():
    assert [(name, first) for name, first, _ in alike("b", "A", "a", "B", "B ", "c")] == [
        (2, 1),
        (3, 0),
        (4, 0),
    ]


@given(st.lists(st.text(max_size=6), unique=True, max_size=20))
def test_any_texts_can_be_compared(names):
    places, firsts, reasons = find_alike(pa.array(names, pa.large_string()))
    assert (firsts < places).all()
    assert len(reasons) == len(places)


def test_a_finding_has_both_names_and_their_rows():
    names, rows = pa.array(["Bags", "tops", "bags"]), np.array([3, 5, 8])
    (finding,) = check_names(names, rows, column="vertical")
    assert (finding.code, finding.severity, finding.count) == ("verticals_alike", "error", 1)
    assert (finding.rows.tolist(), finding.others.tolist()) == ([8], [3])
    assert finding.detail(0) == "'bags' differs from 'Bags' only in case"
    assert next(check_names(names, rows, column="item_id")).severity == "warning"
    assert not list(check_names(pa.array(["a", "b"]), rows, column="vertical"))


def test_placeholder_names_are_reported_with_their_rows():
    names = pa.array(["7", "nan", " NULL", "<NA>", "None", "#N/A", "Nancy", "nano", "0", ""])
    rows, counts = np.arange(10) * 10, np.arange(10) + 1
    (finding,) = check_placeholders(names, rows, counts, column="item_id")
    assert (finding.code, finding.severity, finding.count) == (
        *("placeholder_names", "warning"),
        2 + 3 + 4 + 5 + 6,
    )
    assert finding.rows.tolist() == [10, 20, 30, 40, 50]
    assert finding.details[:2] == ["'nan' in 2 rows", "' NULL' in 3 rows"]
    assert "column item_id" in finding.what and "'#N/A' in 6 rows" in finding.what
    assert next(check_placeholders(names, rows, counts, column="style")).severity == "note"
    sound = names.take(pa.array([0, 6]))
    assert not list(check_placeholders(sound, rows, counts, column="item_id"))
