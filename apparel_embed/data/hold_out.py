"""Hold-out: some of the training groups become the validation or test split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import find_inconsistent_item, is_blank, ranked_codes_of
from apparel_embed.data.manifest import RESERVED_COLUMN, UNLABELLED, rows_without_teacher


def hold_out(
    table: pa.Table, fraction: float, by: str = "item_id", seed: int = 0, into: str = "val"
) -> pa.Table:
    """Moves some of the training groups to the validation or test split.

    In each vertical the given fraction of the groups moves, rounded, but at least one and never
    all of them. Unlabelled rows of a held-out group are removed: they have no item to evaluate
    with, and a student trained on them would be evaluated on garments it has seen.

    Args:
      table: a manifest as returned by `read_manifest`, without rows of split `into`; its rows may
        be numbered in a column `RESERVED_COLUMN`.
      fraction: share of the groups of `train` to move, in (0, 1).
      by: column whose distinct values are the groups, e.g. `item_id`.
      seed: seed of the choice, which does not depend on the order of the rows.
      into: split to move to, `val` or `test`.

    Returns:
      The table with some `train` replaced by `into`; the remaining rows keep their order.

    Raises:
      UserError: if `fraction` is out of range, the split already has rows, the column is missing
        or empty in a training row, an item would be in both splits, or a vertical with unlabelled
        rows would have no train rows left (groups may span verticals).
    """
    if not 0 < fraction < 1:
        raise UserError(f"{into} fraction {fraction}: expected a number between 0 and 1")
    names = [name for name in table.column_names if name != RESERVED_COLUMN]
    if by not in names:
        raise UserError(f"no column {by!r}; expected one of {', '.join(names)}")
    if pc.any(pc.equal(table["split"], into)).as_py():
        raise UserError(f"the manifest already has {into} rows; hold out nothing or remove them")
    moved = _chosen_groups(_training_groups(table, by), fraction, seed)
    # An empty cell is not a group, so it is never in `moved`.
    held = pc.is_in(table[by].cast(pa.string()), value_set=moved)
    split = pc.if_else(pc.and_(pc.equal(table["split"], "train"), held), into, table["split"])
    table = table.set_column(table.column_names.index("split"), "split", split)
    left_out = pc.and_(pc.equal(split, UNLABELLED), held)
    if pc.any(left_out).as_py():
        table = table.filter(pc.invert(left_out))
    refused = table.filter(rows_without_teacher(table))
    if refused.num_rows:
        raise UserError(
            f"vertical {refused['vertical'][0].as_py()!r} has {UNLABELLED} rows, but holding out "
            f"by {by!r} leaves it no train rows to train a specialist on; hold out by another "
            "column or with another seed"
        )
    return table


def _training_groups(table: pa.Table, by: str) -> pa.Table:
    """Returns `item_id`, `vertical` and `group` of the training rows; each item has one group."""
    is_train = pc.equal(table["split"], "train")
    # Not whole rows: the paths alone take much memory.
    train = table.select(sorted({"item_id", "vertical", by})).filter(is_train)
    groups = train[by].cast(pa.string())
    ungrouped = pc.index(is_blank(pc.fill_null(groups, "")), True).as_py()
    if ungrouped >= 0:
        index = pc.indices_nonzero(is_train)[ungrouped].as_py()
        raise UserError(
            f"column {by!r} is empty in some training rows, e.g. that of image "
            f"{table['image'][index].as_py()!r}; every training row needs a group"
        )
    train = pa.table({"item_id": train["item_id"], "vertical": train["vertical"], "group": groups})
    inconsistent = None if by == "item_id" else find_inconsistent_item(train, ["group"])
    if inconsistent is not None:
        _, *rows = inconsistent
        one, other = (groups[row].as_py() for row in rows)
        raise UserError(
            f"item_id {train['item_id'][rows[0]].as_py()!r} has {by} {one!r} and {other!r}; to "
            f"hold out by {by}, all images of an item must have the same {by}"
        )
    return train


def _chosen_groups(train: pa.Table, fraction: float, seed: int) -> pa.Array:
    """Returns the groups to hold out, drawn vertical by vertical."""
    # A group may span verticals (a shop, a day); it is drawn with those of its first vertical.
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
