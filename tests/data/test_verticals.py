import pyarrow as pa
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.verticals import map_verticals, parse_mapping, parse_pairs


def table_of(verticals, items=None):
    """Returns a table of two chunks, as read from a file with several blocks."""
    items = items or [str(number) for number in range(len(verticals))]
    table = pa.table({"shop": verticals, "item_id": items, "vertical": verticals})
    return pa.concat_tables([table.slice(0, 1), table.slice(1)])


def test_entries_are_parsed_as_old_and_new_names():
    entries = ["blouses:tops", " t-shirts : tops ", "umbrellas:", "women:dresses:dress"]
    assert parse_mapping(entries) == {
        "blouses": "tops",
        "t-shirts": "tops",
        "umbrellas": "",
        "women:dresses": "dress",
    }
    assert parse_mapping([]) == {}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["tops"], "'tops' is invalid; expected old:new, or old: to exclude that vertical"),
        ([":tops"], "':tops' is invalid"),
        ([""], "'' is invalid"),
        (["a:b", "a:c"], "'a' occurs twice; name each vertical once"),
    ],
)
def test_wrong_entries_are_refused(entries, message):
    with pytest.raises(UserError, match=message):
        parse_mapping(entries)


def test_verticals_are_renamed_merged_and_excluded_and_rows_keep_their_order():
    table = table_of(["blouses", "umbrellas", "tops", "t-shirts", "bags", "blouses"])
    found = map_verticals(table, {"blouses": "tops", "t-shirts": "tops", "umbrellas": ""})
    assert found["vertical"].to_pylist() == ["tops", "tops", "tops", "bags", "tops"]
    assert found["shop"].to_pylist() == ["blouses", "tops", "t-shirts", "bags", "blouses"]
    assert found["item_id"].to_pylist() == ["0", "2", "3", "4", "5"]
    assert found.schema == table.schema


def test_names_are_mapped_simultaneously():
    found = map_verticals(table_of(["a", "b", "c"]), {"a": "b", "b": "a", "c": "c"})
    assert found["vertical"].to_pylist() == ["b", "a", "c"]


def test_without_a_mapping_the_table_is_unchanged():
    table = table_of(["a", "b"])
    assert map_verticals(table, {}) is table


def test_the_error_of_an_unknown_name_lists_the_known_names():
    with pytest.raises(UserError, match=r"no vertical 'top'; expected one of bags, tops$"):
        map_verticals(table_of(["tops", "bags"]), {"bags": "tops", "top": ""})


def test_excluding_all_verticals_is_refused():
    with pytest.raises(UserError, match=r"leaves no row: all verticals \(bags, tops\) are excl"):
        map_verticals(table_of(["tops", "bags"]), {"bags": "", "tops": ""})


def test_an_item_in_two_verticals_is_refused_unless_they_are_merged_or_excluded():
    table = table_of(["tops", "bags", "blouses", "tops"], ["7", "8", "7", "9"])
    message = "item_id '7' would be in the verticals 'tops' and 'blouses'; an item belongs to one"
    with pytest.raises(UserError, match=message):
        map_verticals(table, {"bags": "purses"})
    for new in ("tops", ""):
        found = map_verticals(table, {"blouses": new})
        assert set(found["vertical"].to_pylist()) == {"tops", "bags"}


def test_rows_without_an_item_may_be_of_any_vertical():
    table = table_of(["tops", "bags", "bags", "tops"], ["", "", " ", " "])
    found = map_verticals(table, {"bags": "purses"})
    assert found["vertical"].to_pylist() == ["tops", "purses", "purses", "tops"]


def pairs(*entries, **options):
    return parse_pairs("tags", entries, allowed="each is a:b", what="tag", **options)


def test_additional_colons_belong_to_the_value_or_to_the_name():
    assert pairs(" a : {b}:{c} ", "d:") == {"a": "{b}:{c}", "d": ""}
    assert pairs("a:b:c", "d:", at_last_colon=True) == {"a:b": "c", "d": ""}
    assert pairs() == {}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a"], "^--tags: 'a' is invalid; each is a:b$"),
        ([" :b"], "^--tags: ' :b' is invalid"),
        (["a:b", "a:c"], "^--tags: 'a' occurs twice; name each tag once$"),
    ],
)
def test_the_error_names_the_invalid_pair(entries, message):
    with pytest.raises(UserError, match=message):
        pairs(*entries)
