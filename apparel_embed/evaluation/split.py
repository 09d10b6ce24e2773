"""The evaluation set of a split of a prepared dataset."""

from __future__ import annotations

from collections.abc import Sequence

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.protocol import EvaluationSet


def evaluation_set(
    dataset: PreparedDataset, split: str, verticals: Sequence[str] | None = None
) -> EvaluationSet:
    """Returns the pictures of a split and their part in the evaluation.

    Args:
      dataset: a prepared dataset.
      split: "train", "val" or "test".
      verticals: those to take, or None for all.

    Raises:
      UserError: unknown split or vertical, or a split that tells of no items.
    """
    if split == UNLABELLED:
        raise UserError(f"split {UNLABELLED} tells of no items to find; evaluate on val or test")
    records = dataset.select(split=split, verticals=verticals)
    roles = dataset.column("role")[records]
    return EvaluationSet(
        records=records,
        items=dataset.column("item_id")[records],
        verticals=dataset.column("vertical")[records],
        is_query=roles != "gallery",
        is_gallery=roles != "query",
    )
