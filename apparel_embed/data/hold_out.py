"""Holding out: a part of the training groups becomes the validation split, or the test split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import find_torn_item, is_blank, ranked_codes_of
from apparel_embed.data.manifest import RESERVED_COLUMN, UNLABELLED, untaught_rows


def hold_out(
    table: pa.Table, fraction: float, by: str = "item_id", seed: int = 0, into: str = "val"
) -> pa.Table:
    """Moves a part of the training groups to the validation split, or to the test split.

    In each vertical the given fraction of the groups moves, rounded, but at least one and never
    all of them. Rows of split unlabelled whose group is held out are left out: they have no item to
    evaluate with, and a student that learnt from them would be judged by garments it has seen.

    Args:
      table: a manifest as `read_manifest` returns it, without rows of split `into`; its rows may be
        numbered in a column `RESERVED_COLUMN`.
      fraction: share of the groups of `train` to move, in (0, 1).
      by: the column whose distinct values are the groups, e.g. `item_id`.
      seed: another seed gives another choice; the order of the rows has no influence.
      into: the split to move to, `val` or `test`.

    Returns:
      The table with some `train` replaced by `into`, the rows that stay in their order.

    Raises:
      UserError: `fraction` is out of range, the split has rows already, the column is missing
        or empty in a training row, it would put one item into both splits, or it would leave a
        vertical with unlabelled rows none of split train (groups may span verticals).
    """
    if not 0 < fraction < 1:
        raise UserError(f"{into} fraction {fraction} is not allowed; it must lie between 0 and 1")
    names = [name for name in table.column_names if name != RESERVED_COLUMN]
    if by not in names:
        raise UserError(f"no column {by!r}; there are {', '.join(names)}")
    if pc.any(pc.equal(table["split"], into)).as_py():
        raise UserError(f"the manifest has {into} rows already; hold out nothing or remove them")
    moved = _chosen_groups(_training_groups(table, by), fraction, seed)
    # An empty cell is no group, and so in none of them.
    held = pc.is_in(table[by].cast(pa.string()), value_set=moved)
    split = pc.if_else(pc.and_(pc.equal(table["split"], "train"), held), into, table["split"])
    table = table.set_column(table.column_names.index("split"), "split", split)
    left_out = pc.and_(pc.equal(split, UNLABELLED), held)
    if pc.any(left_out).as_py():
        table = table.filter(pc.invert(left_out))
    untaught = table.filter(untaught_rows(table))
    if untaught.num_rows:
        raise UserError(
            f"vertical {untaught['vertical'][0].as_py()!r} has rows of split {UNLABELLED}, but to "
            f"hold out by {by!r} leaves it none of split train, and so no specialist to learn "
            "from; hold out by another column or with another seed"
        )
    return table


def _training_groups(table: pa.Table, by: str) -> pa.Table:
    """Returns `item_id`, `vertical` and `group` of the training rows; each item has one group."""
    is_train = pc.equal(table["split"], "train")
    # Not whole rows: of many the paths alone are large.
    train = table.select(sorted({"item_id", "vertical", by})).filter(is_train)
    groups = train[by].cast(pa.string())
    ungrouped = pc.index(is_blank(pc.fill_null(groups, "")), True).as_py()
    if ungrouped >= 0:
        index = pc.indices_nonzero(is_train)[ungrouped].as_py()
        raise UserError(
            f"column {by!r} is empty in some training rows, e.g. that of image "
            f"{table['image'][index].as_py()!r}; each needs a group"
        )
    train = pa.table({"item_id": train["item_id"], "vertical": train["vertical"], "group": groups})
    torn = None if by == "item_id" else find_torn_item(train, ["group"])
    if torn is not None:
        one, other = (groups[row].as_py() for row in torn[1:])
        raise UserError(
            f"item_id {train['item_id'][torn[1]].as_py()!r} has {by} {one!r} and {other!r}; to "
            f"hold out by {by}, all images of an item must have the same"
        )
    return train


def _chosen_groups(train: pa.Table, fraction: float, seed: int) -> pa.Array:
    """Returns the groups to hold out, drawn vertical by vertical."""
    # A group may span verticals (a shop, a day); it is drawn with the first of them by name.
    groups, names = ranked_codes_of(train["group"])
    verticals, _ = ranked_codes_of(train["vertical"])
    home = np.full(len(names), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(home, groups, verticals)
    random = np.random.default_rng(seed)
    chosen = [np.empty(0, np.int64)]
    for vertical in np.unique(home):
        here = np.flatnonzero(home == vertical)
        count = min(max(1, round(fraction * len(here))), len(here) - 1)
        chosen.append(random.permutation(here)[:count])
    return names.take(pa.array(np.concatenate(chosen)))
