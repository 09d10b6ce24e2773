"""Retrieval metrics per query: recall@k and mAP@R."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import SECONDS_UNSEEN, progress_bar
from apparel_embed.evaluation.neighbours import NearestSearch, require_directions

# Queries and neighbours handled at once. They bound memory and do not affect results.
_QUERIES_AT_ONCE = 1 << 15
_NEIGHBOURS_AT_ONCE = 1 << 21


@dataclasses.dataclass(frozen=True, eq=False)
class QueryMetrics:
    """Metrics of the queries that have a match in the gallery, in input order.

    Attributes:
      records: [m] int64, record number of each query.
      items: [m] item of each query.
      recall: k -> [m] float64, 1 if an image of the item is among the k nearest, else 0.
      average_precision_at_r: [m] float64, 0 to 1; its mean is mAP@R.
      chance: [m] float64, 0 to 1, recall@1 of drawing a gallery image at random.
      without_answer: number of queries left out because the gallery has no match for them.
    """

    records: np.ndarray
    items: np.ndarray
    recall: dict[int, np.ndarray]
    average_precision_at_r: np.ndarray
    chance: np.ndarray
    without_answer: int

    def __len__(self) -> int:
        return len(self.records)

    def select(self, chosen: np.ndarray) -> QueryMetrics:
        """Returns the metrics of some queries, given as bool [m] or positions.

        `without_answer` becomes 0, since it is unknown for a part of the queries.
        """
        return QueryMetrics(
            records=self.records[chosen],
            items=self.items[chosen],
            recall={k: values[chosen] for k, values in self.recall.items()},
            average_precision_at_r=self.average_precision_at_r[chosen],
            chance=self.chance[chosen],
            without_answer=0,
        )


def mean_metrics(metrics: QueryMetrics) -> dict[str, float]:
    """Returns means over queries: `r_at_<k>` for every k, and `map_at_r`.

    Raises:
      UserError: if there are no queries.
    """
    if not len(metrics):
        raise UserError("no query has another image of its item in the gallery; expected one")
    means = {f"r_at_{k}": float(values.mean()) for k, values in metrics.recall.items()}
    return {**means, "map_at_r": float(metrics.average_precision_at_r.mean())}


def retrieval_metrics(
    query_embeddings: np.ndarray,
    query_items: np.ndarray,
    query_records: np.ndarray,
    gallery_embeddings: np.ndarray,
    gallery_items: np.ndarray,
    gallery_records: np.ndarray,
    ks: Sequence[int] = (1, 5, 10, 20),
) -> QueryMetrics:
    """Searches the gallery with every query and returns the metrics.

    A query never finds its own record. Queries without another image of their item in the
    gallery are left out. recall@k is 1 if an image of the item is among the k nearest. Only the
    metrics are kept, so memory grows with the number of queries and of gallery images, but not
    with their product.

    mAP@R is that of Musgrave et al., "A Metric Learning Reality Check" (2020): with R
    the number of gallery images of the query's item, 1/R times the sum over i <= R of the
    precision at i if the i-th image is right, and 0 if it is not.

    Args:
      query_embeddings: [q, dim] nonzero embeddings of any length.
      query_items: [q] item ids.
      query_records: [q] int64 record numbers.
      gallery_embeddings: [g, dim] nonzero embeddings of any length.
      gallery_items: [g] item ids.
      gallery_records: [g] unique int64 record numbers.
      ks: the k of recall@k, each at least 1.

    Returns:
      Metrics of the queries that have an answer; possibly none.

    Raises:
      UserError: if an embedding is zero or not finite, shapes do not match, or a k is invalid.
    """
    if not ks or min(ks) < 1:
        raise UserError(f"recall@k for k in {list(ks)}; expected at least one k, each 1 or more")
    query_items, gallery_items = np.asarray(query_items), np.asarray(gallery_items)
    query_records, gallery_records = np.asarray(query_records), np.asarray(gallery_records)
    # Check all of them, because the search below sees only queries that have an answer.
    require_directions(query_embeddings, "query embeddings")
    require_directions(gallery_embeddings, "gallery embeddings")
    _check_items("query", query_items, query_embeddings)
    _check_items("gallery", gallery_items, gallery_embeddings)
    names, codes = np.unique(np.concatenate([query_items, gallery_items]), return_inverse=True)
    query_codes, gallery_codes = np.split(codes, [len(query_items)])
    matches = np.bincount(gallery_codes, minlength=len(names))[query_codes]
    itself = _finds_itself(query_codes, query_records, gallery_codes, gallery_records)
    matches -= itself
    answered = np.flatnonzero(matches > 0)

    recall = {k: np.zeros(len(query_items)) for k in ks}
    precision = np.zeros(len(query_items))
    search = NearestSearch(gallery_embeddings, gallery_records)
    query_embeddings = np.asarray(query_embeddings)
    bar = progress_bar(total=len(answered), what="search", unit="queries", delay=SECONDS_UNSEEN)
    # A few items may have many images. In order of R, only their queries need a long list.
    order = answered[np.argsort(matches[answered], kind="stable")]
    while len(order):
        longest = max(max(ks), int(matches[order[:_QUERIES_AT_ONCE][-1]]))
        some = order[: min(_QUERIES_AT_ONCE, max(1, _NEIGHBOURS_AT_ONCE // longest))]
        order = order[len(some) :]
        wanted = max(max(ks), int(matches[some].max()))
        positions, _ = search.nearest(query_embeddings[some], wanted, query_records[some])
        right = (gallery_codes[positions] == query_codes[some, None]) & (positions >= 0)
        precision[some] = average_precision_at_r(right, matches[some])
        for k in ks:
            recall[k][some] = right[:, :k].any(axis=1)
        bar.update(len(some))
    bar.close()
    return QueryMetrics(
        records=query_records[answered],
        items=query_items[answered],
        recall={k: values[answered] for k, values in recall.items()},
        average_precision_at_r=precision[answered],
        chance=(matches / np.maximum(len(gallery_items) - itself, 1))[answered],
        without_answer=len(query_items) - len(answered),
    )


def average_precision_at_r(right: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Returns the average precision at R of each query (Musgrave et al. 2020).

    Args:
      right: [q, k] bool, whether the i-th neighbour is of the query's item; k is at least R or
        covers the whole gallery.
      matches: [q] R, the number of right images in the gallery, at least 1.

    Returns:
      [q] float64, 0 to 1.

    Examples:
      >>> average_precision_at_r(np.array([[True, False, True]]), np.array([3]))
      array([0.55555556])
    """
    ranks = np.arange(1, right.shape[1] + 1)
    counted = right & (ranks <= matches[:, None])
    return (np.cumsum(right, axis=1) / ranks * counted).sum(axis=1) / matches


def _finds_itself(
    query_codes: np.ndarray,
    query_records: np.ndarray,
    gallery_codes: np.ndarray,
    gallery_records: np.ndarray,
) -> np.ndarray:
    """Returns [q] 0 or 1: whether a query's own record counts among the images of its item."""
    order = np.argsort(gallery_records, kind="stable")
    ordered = gallery_records[order]
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise UserError(
            f"record {twice[0]} occurs more than once in the gallery ({len(twice)} duplicates)"
        )
    if not len(ordered):
        return np.zeros(len(query_codes), np.int64)
    at = order[np.minimum(np.searchsorted(ordered, query_records), len(ordered) - 1)]
    own = gallery_records[at] == query_records
    return (own & (gallery_codes[at] == query_codes)).astype(np.int64)


def _check_items(what: str, items: np.ndarray, embeddings: np.ndarray) -> None:
    count = len(embeddings)
    if items.shape != (count,):
        raise UserError(f"{what}: items of shape {items.shape}; expected ({count},)")
