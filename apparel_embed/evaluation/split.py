"""The images of a split, and their roles in the evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.bootstrap import positions_of

ALL = "ALL"
"""The name of the mean over verticals."""


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The images of one split and their roles in the evaluation.

    Attributes:
      records: [n] unique int64 record numbers.
      items: [n] str item ids.
      verticals: [n] str names; "ALL" is reserved for the mean over verticals.
      is_query: [n] bool.
      is_gallery: [n] bool; an image of role "both" is query and gallery.
    """

    records: np.ndarray
    items: np.ndarray
    verticals: np.ndarray
    is_query: np.ndarray
    is_gallery: np.ndarray

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = np.asarray(getattr(self, field.name))
            if field.name.startswith("is_"):
                values = values.astype(bool)
            object.__setattr__(self, field.name, values)
            if values.ndim != 1 or len(values) != len(self.records):
                raise UserError(
                    f"{field.name} of shape {values.shape}, but {len(self.records)} records; "
                    "expected one value per image"
                )
        numbers, counts = np.unique(self.records, return_counts=True)
        if (counts > 1).any():
            raise UserError(f"duplicate record {numbers[counts.argmax()]} in the evaluation set")
        if (self.verticals == ALL).any():
            raise UserError(f"a vertical is named {ALL!r}, which is reserved; rename the vertical")

    def __len__(self) -> int:
        return len(self.records)

    def only(self, chosen: np.ndarray) -> EvaluationSet:
        """Returns the subset of the images for which `chosen`, bool [n], is true."""
        fields = (field.name for field in dataclasses.fields(self))
        return EvaluationSet(**{name: getattr(self, name)[chosen] for name in fields})

    def by_vertical(self) -> dict[str, np.ndarray]:
        """Returns the positions of each vertical's queries and gallery images, keyed by name."""
        used = np.flatnonzero(self.is_query | self.is_gallery)
        return {name: used[some] for name, some in positions_of(self.verticals[used]).items()}

    def positions(self, records: np.ndarray) -> np.ndarray:
        """Returns the positions of records in the set, which must contain them."""
        order = np.argsort(self.records)
        return order[np.searchsorted(self.records[order], records)]


def evaluation_set(
    dataset: PreparedDataset, split: str, verticals: Sequence[str] | None = None
) -> EvaluationSet:
    """Returns the images of a split and their roles in the evaluation.

    Args:
      dataset: a prepared dataset.
      split: "train", "val" or "test".
      verticals: the verticals to include, or None for all.

    Raises:
      UserError: if a split or vertical is unknown, or the split has no items.
    """
    if split == UNLABELLED:
        raise UserError(f"split {UNLABELLED} has no items to find; evaluate on val or test")
    records = dataset.select(split=split, verticals=verticals)
    roles = dataset.column("role")
    return _set_of(dataset, records, roles != "gallery", roles != "query")


def catalogue_set(dataset: PreparedDataset, split: str) -> tuple[EvaluationSet, np.ndarray]:
    """Returns the gallery of all splits with the queries of val and of one split.

    Args:
      dataset: a prepared dataset.
      split: the split whose queries are included in addition to those of val.

    Returns:
      The set, and the split of each of its images: str [n].
    """
    splits, roles = dataset.column("split"), dataset.column("role")
    is_query = np.isin(splits, ["val", split]) & (roles != "gallery")
    is_gallery = (splits != UNLABELLED) & (roles != "query")
    records = np.flatnonzero(is_query | is_gallery)
    return _set_of(dataset, records, is_query, is_gallery), splits[records]


def _set_of(
    dataset: PreparedDataset, records: np.ndarray, is_query: np.ndarray, is_gallery: np.ndarray
) -> EvaluationSet:
    return EvaluationSet(
        records=records,
        items=dataset.column("item_id")[records],
        verticals=dataset.column("vertical")[records],
        is_query=is_query[records],
        is_gallery=is_gallery[records],
    )
