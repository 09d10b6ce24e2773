"""Holding out train groups as val."""

import numpy as np
import pyarrow as pa
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.hold_out import hold_out

U = "unlabelled"


def manifest(items, verticals=("tops", "bags"), **extra):
    """Returns a manifest of `items` items per vertical, with two images each."""
    names = [f"{vertical}-{i}" for vertical in verticals for i in range(items) for _ in range(2)]
    columns = {
        "image": [f"{i}.jpg" for i in range(len(names))],
        "item_id": names,
        "vertical": [name.split("-")[0] for name in names],
        "split": ["train"] * len(names),
    }
    columns.update(extra)
    return pa.table(columns)


def held_out(table):
    return set(table.filter(pa.compute.equal(table["split"], "val"))["item_id"].to_pylist())


def test_the_fraction_of_whole_items_of_each_vertical_is_held_out():
    table = manifest(20)
    result = hold_out(table, 0.25)
    items = held_out(result)
    assert sorted(item.split("-")[0] for item in items) == ["bags"] * 5 + ["tops"] * 5
    split = result["split"].to_numpy().astype(str)
    names = result["item_id"].to_numpy().astype(str)
    np.testing.assert_array_equal(split == "val", np.isin(names, list(items)))
    assert result.drop_columns("split").equals(table.drop_columns("split"))


def test_the_choice_is_deterministic_and_ignores_the_order_of_rows():
    table = manifest(20)
    assert hold_out(table, 0.3, seed=4).equals(hold_out(table, 0.3, seed=4))
    backwards = table.take(list(range(table.num_rows))[::-1])
    assert held_out(hold_out(backwards, 0.3, seed=4)) == held_out(hold_out(table, 0.3, seed=4))
    assert held_out(hold_out(table, 0.3, seed=5)) != held_out(hold_out(table, 0.3, seed=4))


def test_at_least_one_group_and_never_all_are_held_out():
    for fraction in (0.001, 0.999):
        items = held_out(hold_out(manifest(2), fraction))
        assert sorted(item.split("-")[0] for item in items) == ["bags", "tops"]
    assert held_out(hold_out(manifest(1), 0.9)) == set()


def test_unlabelled_rows_of_other_groups_are_unchanged():
    table = manifest(
        4, item_id=[f"i{i // 2}" for i in range(12)] + [""] * 4, split=["train"] * 12 + [U] * 4
    )
    split = hold_out(table, 0.5)["split"].to_pylist()
    assert split[12:] == [U] * 4
    # 2 of the 4 items of tops, 1 of the 2 of bags.
    assert (split[:8].count("val"), split[8:12].count("val")) == (4, 2)


def test_unlabelled_rows_of_held_out_groups_are_removed():
    # Styles with two items and an unlabelled image each; two images have no style or their own.
    names = [f"i{i}" for i in range(8)]
    table = pa.table(
        {
            "image": [f"{i}.jpg" for i in range(14)],
            "item_id": [*names, *[""] * 6],
            "vertical": ["tops"] * 14,
            "split": ["train"] * 8 + [U] * 6,
            "style": [*"aabbccdd", *"abcd", "", "z"],
        }
    )
    result = hold_out(table, 0.5, by="style")
    held = set(result.filter(pa.compute.equal(result["split"], "val"))["style"].to_pylist())

    assert len(held) == 2
    left = [row["style"] for row in result.to_pylist() if row["split"] == U]
    assert left == [style for style in [*"abcd", "", "z"] if style not in held]
    # All labelled rows are kept, and the order of rows is unchanged.
    assert result["item_id"].to_pylist()[:8] == names
    numbers = [int(image.split(".")[0]) for image in result["image"].to_pylist()]
    assert numbers == sorted(numbers) and len(numbers) == 12


def test_leaving_unlabelled_rows_without_a_specialist_is_refused():
    # Shop s is drawn with the shops of bags, and is the only shop of tops.
    table = pa.table(
        {
            "image": [f"{i}.jpg" for i in range(5)],
            "item_id": ["1", "2", "3", "4", ""],
            "vertical": ["bags", "bags", "bags", "tops", "tops"],
            "split": ["train"] * 4 + [U],
            "shop": ["s", "t", "u", "s", ""],
        }
    )
    same_shop = table.set_column(4, "shop", pa.array(["s", "t", "u", "s", "s"]))
    labelled = table.slice(0, 4)
    moves = [hold_out(labelled, 0.3, "shop", seed)["split"][3].as_py() for seed in range(10)]
    moved, stayed = moves.index("val"), moves.index("train")

    assert hold_out(table, 0.3, "shop", stayed)["split"].to_pylist()[3:] == ["train", U]
    with pytest.raises(UserError, match=r"'tops' has .* rows, .* out by 'shop' leaves it no train"):
        hold_out(table, 0.3, "shop", moved)
    # Unlabelled rows of the same shop are removed, so none lacks a specialist.
    assert hold_out(same_shop, 0.3, "shop", moved).num_rows == 4


def test_test_rows_are_unchanged_and_other_columns_can_be_groups():
    table = manifest(
        10, split=["train"] * 20 + ["test"] * 20, day=[f"d{i // 4}" for i in range(40)]
    )
    result = hold_out(table, 0.4, by="day")
    assert result["split"].to_pylist()[20:] == ["test"] * 20
    moved = result.filter(pa.compute.equal(result["split"], "val"))
    assert len(set(moved["day"].to_pylist())) == 2 and moved.num_rows == 8


def test_invalid_arguments_are_refused():
    table = manifest(4)
    for fraction in (0, 1, -0.5, 2, float("nan")):
        with pytest.raises(UserError, match="expected a number between 0 and 1"):
            hold_out(table, fraction)
    numbered = table.append_column("record", pa.array(range(table.num_rows)))
    for by in ("day", "record"):
        with pytest.raises(UserError, match=rf"no column '{by}'; expected one of image.*, split$"):
            hold_out(numbered, 0.5, by=by)
    with pytest.raises(UserError, match="already has val rows"):
        hold_out(hold_out(table, 0.5), 0.5)
    for missing in ("", " ", None):
        with pytest.raises(UserError, match=r"column 'day' is empty .* image '1.jpg'"):
            hold_out(manifest(1, day=["a", missing, "a", "a"]), 0.5, by="day")
    with pytest.raises(UserError, match="item_id 'tops-0' has day 'a' and 'b'"):
        hold_out(manifest(1, day=["a", "b", "c", "c"]), 0.5, by="day")
