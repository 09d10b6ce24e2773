import collections
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.importers.splitting import split as split_rows

UNTESTED = "no rows of split test, so no model can be evaluated; --test_fraction holds some out"


def split(table, options):
    """Returns the table after splitting, and the notes except that on a missing test split."""
    rows = Rows(table, Path("shop"), {})
    split_rows(rows, options)
    has_test = "test" in rows.table["split"].to_pylist()
    assert (UNTESTED in rows.notes) == (not has_test)
    return rows.table, tuple(note for note in rows.notes if note != UNTESTED)


def table_of(styles, splits="train"):
    """Returns rows of styles, given as (vertical, style, items, images per item)."""
    rows = [
        {
            "image": f"{vertical}/{style}/{item}/{image}.jpg",
            "item_id": f"{vertical}-{style}-{item}",
            "vertical": vertical,
            "style_id": f"{vertical}-{style}",
            "split": splits,
            "role": "both",
        }
        for vertical, style, items, images in styles
        for item in range(items)
        for image in range(images)
    ]
    return pa.Table.from_pylist(rows)


def splits_of(table, by="style_id"):
    """Returns the splits of each group."""
    found = collections.defaultdict(set)
    for group, name in zip(table[by].to_pylist(), table["split"].to_pylist()):
        found[group].add(name)
    return dict(found)


def groups_in(table, name, vertical):
    return sum(
        names == {name} and group.startswith(f"{vertical}-")
        for group, names in splits_of(table).items()
    )


SHOP = st.lists(
    st.tuples(
        st.sampled_from(["tops", "bags", "shoes"]),
        st.integers(0, 30),
        st.integers(1, 3),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda style: style[:2],
)
FRACTION = st.floats(0.05, 0.45)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(styles=SHOP, val=FRACTION, test=FRACTION, seed=st.integers(0, 3), data=st.data())
def test_splits_keep_groups_whole_are_stratified_and_depend_on_content_and_seed_only(
    styles, val, test, seed, data
):
    table = table_of(styles)
    options = SplitOptions(val_fraction=val, test_fraction=test, by="style_id", seed=seed)
    found, _ = split(table, options)

    # No garment leaks: a style is in one split with all its items and images.
    groups = splits_of(found)
    assert all(len(names) == 1 for names in groups.values())
    # Every vertical has its fraction of each, up to the rounding of both.
    for vertical in {style[0] for style in styles}:
        count = sum(group.startswith(f"{vertical}-") for group in groups)
        for name, share in (("test", test), ("val", val)):
            here = groups_in(found, name, vertical)
            enough = count > 1 if name == "test" else count > 2
            assert bool(here) == enough
            assert abs(here - share * count) <= 1 + 1e-9 or here in (1, count - 1)
        assert groups_in(found, "train", vertical) >= 1
    # Only the split has changed, and rows keep their order.
    assert found.drop_columns(["split"]).equals(table.drop_columns(["split"]))
    # The result is reproducible and does not depend on the order of rows.
    assert split(table, options)[0].equals(found)
    order = data.draw(st.permutations(range(table.num_rows)))
    shuffled, _ = split(table.take(pa.array(order, pa.int64())), options)
    assert splits_of(shuffled) == groups


def test_another_seed_holds_out_other_groups():
    table = table_of([("tops", style, 1, 1) for style in range(30)])
    options = [SplitOptions(test_fraction=0.3, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (splits_of(split(table, option)[0]) for option in options)
    assert first == again != other


def test_both_fractions_refer_to_all_groups():
    table = table_of([("tops", style, 1, 2) for style in range(20)])
    found, notes = split(table, SplitOptions(val_fraction=0.25, test_fraction=0.5))
    assert [groups_in(found, name, "tops") for name in ("train", "val", "test")] == [5, 5, 10]
    assert notes == ()


def test_without_fractions_nothing_changes():
    table = table_of([("tops", 1, 1, 1)])
    assert split(table, SplitOptions()) == (table, ())


def test_an_existing_split_is_not_extended():
    train = table_of([("tops", style, 1, 1) for style in range(10)])
    test = table_of([("tops", style, 1, 1) for style in range(10, 14)], splits="test")
    table = pa.concat_tables([train, test])
    with pytest.raises(
        UserError, match=r"--test_fraction=0.5: the dataset already has rows of split test"
    ):
        split(table, SplitOptions(test_fraction=0.5))
    found, _ = split(table, SplitOptions(val_fraction=0.2, by="style_id"))
    assert [groups_in(found, name, "tops") for name in ("train", "val", "test")] == [8, 2, 4]


def test_groups_that_the_dataset_itself_divides_are_noted():
    train = table_of([("tops", style, 2, 1) for style in range(6)])
    splits = ["test" if item.endswith("-0-0") else "train" for item in train["item_id"].to_pylist()]
    table = train.set_column(train.column_names.index("split"), "split", pa.array(splits))
    _, notes = split(table, SplitOptions(val_fraction=0.2, by="style_id"))
    assert len(notes) == 1
    assert "in several splits: 1 of 6 (e.g. tops-0)" in notes[0]
    # Rows that are unlabelled or without a style are ignored.
    others = pa.concat_tables(
        table.take(pa.array([0])).set_column(index, name, pa.array([value]))
        for index, name, value in ((4, "split", "unlabelled"), (3, "style_id", ""))
    )
    labelled = table.filter(pa.array([name == "train" for name in splits]))
    options = SplitOptions(val_fraction=0.2, by="style_id")
    assert table.column_names[3:5] == ["style_id", "split"]
    assert not any("in several" in note for note in split(labelled, options)[1])
    more = pa.concat_tables([labelled, others.slice(0, 1)])
    assert not any("in several" in note for note in split(more, options)[1])


def test_unlabelled_rows_of_held_out_groups_are_left_out_and_counted():
    labelled = table_of([("tops", style, 1, 1) for style in range(10)])
    unlabelled = table_of([("tops", style, 1, 3) for style in range(10)], splits="unlabelled")
    empty = pa.array([""] * 30)
    unlabelled = unlabelled.set_column(1, "item_id", empty)
    found, notes = split(
        pa.concat_tables([labelled, unlabelled]), SplitOptions(test_fraction=0.2, by="style_id")
    )
    assert found.num_rows == 34
    assert notes == ("left out: unlabelled rows whose style_id is held out: 6",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction is 1.0; expected 0 to 0.9"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1; expected"),
        ({"test_fraction": float("nan")}, "test_fraction is nan; expected"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
    ],
)
def test_fractions_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SplitOptions(**options)


def test_a_group_column_that_is_missing_or_divides_items_is_refused():
    table = table_of([("tops", style, 2, 2) for style in range(4)])
    with pytest.raises(UserError, match="--split_by=shop: no column 'shop'; found: image, item"):
        split(table, SplitOptions(test_fraction=0.5, by="shop"))
    boxed = table.append_column("x_min", pa.array([1.5] * table.num_rows))
    with pytest.raises(UserError, match=r"^--split_by=x_min: column 'x_min' contains numbers"):
        split(boxed, SplitOptions(test_fraction=0.5, by="x_min"))
    with pytest.raises(UserError, match="item_id 'tops-0-0' has image"):
        split(table, SplitOptions(test_fraction=0.5, by="image"))
