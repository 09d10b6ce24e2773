"""Evaluation of an index with one vector per item instead of one per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apparel_embed.evaluation.metrics import QueryMetrics, retrieval_metrics
from apparel_embed.evaluation.neighbours import unit_length
from apparel_embed.evaluation.protocol import (
    SCOPES,
    WITHIN,
    EvaluationSet,
    compare_models,
    query_outcomes,
    summary_rows,
)
from apparel_embed.evaluation.split import ALL

ITEMS_FILE = "items.json"
IMAGE, ITEM = "image", "item"
_QUERIES_AT_ONCE = 1024
# Similarities that differ by less are a tie.
_TIE = 1e-6


def measure_items(embeddings: np.ndarray, images: EvaluationSet, seed: int) -> dict[str, Any]:
    """Returns the content of `items.json`: searches of images, and of items by their mean vectors.

    Args:
      embeddings: [n, dim] of the images of the set, in its order, all in one space.
      images: the evaluation set.
      seed: seed of the bootstrap.

    Returns:
      `rows`: for each `index_by` and scope, the means over verticals as in `summary.json` and the
      number of `vectors` searched. `differences`: R@1 of items minus images, for each scope.
    """
    searched = {}
    for scope in SCOPES:
        for name, metrics in ((IMAGE, retrieval_metrics), (ITEM, item_metrics)):
            searched[scope, name] = query_outcomes(embeddings, images, scope, metrics=metrics)
    gallery = np.stack([images.verticals, images.items])[:, images.is_gallery]
    rows, differences = [], []
    for (scope, name), outcomes in searched.items():
        counted = list(outcomes.counted()) if scope == WITHIN else list(outcomes.verticals)
        some = gallery[:, np.isin(gallery[0], counted)]
        vectors = some.shape[1] if name == IMAGE else len(set(zip(*some.tolist())))
        row = next(row for row in summary_rows(outcomes, seed) if row["vertical"] == ALL)
        rows.append({"index_by": name, "vectors": vectors, **row})
        if name == ITEM:
            found = compare_models(outcomes, searched[scope, IMAGE], seed=seed)[ALL]
            differences.append({"scope": scope, **found.as_record()})
    return {"rows": rows, "differences": differences}


def mean_vectors(embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns a unit vector for each item: the mean direction of its images.

    Args:
      embeddings: float [n, dim], of unit length.
      codes: int [n], number of each image's item, consecutive from 0.

    Returns:
      float32 [items, dim]. If an item's images cancel out, the vector of the first.
    """
    _, first = np.unique(codes, return_index=True)
    return _directions(_sums(embeddings, codes), embeddings[first]).astype(np.float32)


def item_metrics(
    query_embeddings: np.ndarray,
    query_items: np.ndarray,
    query_records: np.ndarray,
    gallery_embeddings: np.ndarray,
    gallery_items: np.ndarray,
    gallery_records: np.ndarray,
    ks: Sequence[int],
) -> QueryMetrics:
    """Searches the items of a gallery by their mean vectors and returns the metrics.

    Arguments and answerable queries are those of `retrieval_metrics`. A query's own image is first
    removed from the mean of its item. Ties count as wrong, so a model that gives all images the
    same embedding finds nothing. Only one item is right, so mAP@R equals R@1.
    """
    queries, gallery = unit_length(query_embeddings), unit_length(gallery_embeddings)
    names, codes = np.unique(gallery_items, return_inverse=True)
    code_of = dict(zip(names.tolist(), range(len(names))))
    place_of = dict(zip(gallery_records.tolist(), range(len(gallery))))
    item = np.array([code_of.get(name, -1) for name in query_items.tolist()], np.int64)
    own = np.array([place_of.get(record, -1) for record in query_records.tolist()], np.int64)
    others: np.ndarray = np.append(np.bincount(codes, minlength=len(names)), 0)[item] - (own >= 0)
    answered = np.flatnonzero((item >= 0) & (others > 0))
    queries, item, own = queries[answered], item[answered], own[answered]

    left = _sums(gallery, codes)[item] - gallery[own] * (own >= 0)[:, None]
    right = np.einsum("nd,nd->n", _directions(left, queries), queries)
    means = mean_vectors(gallery, codes)
    nearer = np.zeros(len(answered), np.int64)
    for start in range(0, len(answered), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        near = queries[some] @ means.T
        near[np.arange(len(near)), item[some]] = -np.inf
        nearer[some] = (near >= right[some, None] - _TIE).sum(axis=1)
    recall = {k: (nearer < k).astype(float) for k in ks}
    return QueryMetrics(
        records=query_records[answered],
        items=query_items[answered],
        recall=recall,
        average_precision_at_r=(nearer < 1).astype(float),
        chance=np.full(len(answered), 1 / max(len(names), 1)),
        without_answer=len(query_items) - len(answered),
    )


def _sums(embeddings: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros([codes.max(initial=-1) + 1, embeddings.shape[1]])
    np.add.at(sums, codes, embeddings)
    return sums


def _directions(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Returns vectors at unit length; if one is almost zero, the row of `otherwise` instead."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), otherwise)
