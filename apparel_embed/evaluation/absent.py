"""Distance thresholds for same-item verdicts, and their rates of false accepts.

A query whose item is not in the catalogue still has a nearest image, of another item. The distance
to it shows how near other items come, and a threshold below almost all such distances accepts few
absent queries. Thresholds are fitted on split val and measured on the evaluated split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from apparel_embed.evaluation.bootstrap import stratified_bootstrap_interval
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.evaluation.protocol import MERGED, WITHIN
from apparel_embed.evaluation.split import ALL, EvaluationSet

ABSENT_FILE = "absent.json"
LEVELS = (0.01, 0.05, 0.1)
"""Allowed shares of absent queries that are accepted."""
Verdict = Literal["same item", "similar only"]
SAME: Verdict = "same item"
SIMILAR: Verdict = "similar only"


def absent_threshold(
    distances: Sequence[float] | np.ndarray, items: Sequence[str] | np.ndarray, level: float
) -> float | None:
    """Returns the distance below which queries are accepted, for a given share of false accepts.

    Split conformal prediction over items, whose queries are alike (Lee, Barber and Willett,
    "Distribution-free inference with hierarchical data", 2023): every item has the same weight, and
    one more stands for the next query's item. If items are exchangeable, a query of a new item is
    accepted with a probability of at most `level`.

    Args:
      distances: [n] from each query to the nearest image of another item; infinite without one.
      items: [n] the item of each query.
      level: allowed share of absent queries that are accepted, between 0 and 1.

    Returns:
      The threshold; None if there are fewer than 1 / level - 1 items, which `level` requires.

    Example:
      >>> absent_threshold([0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "d"], 0.4)
      0.2
    """
    distances = np.asarray(distances, np.float64)
    _, codes, counts = np.unique(np.asarray(items), return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    # The tolerance covers rounding errors of weights and levels.
    budget = level * (len(counts) + 1) - 1 + 1e-9
    passed = np.cumsum(1 / counts[codes[order]])
    if budget < 0 or not len(order):
        return None
    found = distances[order[np.searchsorted(passed, budget, side="right")]]
    return float(found) if np.isfinite(found) else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """The nearest images of queries.

    Attributes:
      items: [m] item of each query.
      other: [m] distance to the nearest image of another item; infinite without one.
      nearest: [m] distance to the nearest image; infinite without one.
      is_right: [m] whether the nearest image shows the query's item.
      is_present: [m] whether the gallery has another image of the query's item.
    """

    items: np.ndarray
    other: np.ndarray
    nearest: np.ndarray
    is_right: np.ndarray
    is_present: np.ndarray


def measure_absent(
    embeddings: np.ndarray,
    catalogue: EvaluationSet,
    splits: np.ndarray,
    split: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Fits thresholds on the queries of split val, and measures them on those of another split.

    All queries search the same gallery of all splits, like the index of a run: the more images
    there are, the nearer is the nearest image of another item.

    Args:
      embeddings: [n, dim] of the images of the catalogue, in its order.
      catalogue: the gallery of all splits, and the queries of split val and of the other.
      splits: [n] str, the split of each image.
      split: the split whose queries are measured; "val" measures none, since thresholds fit it.
      seed: seed of the bootstrap.

    Returns:
      The content of `absent.json`: `split` and `rows`. Rows of scope "within" are each vertical,
      with its own thresholds, and "ALL", the mean over verticals; the row of scope "merged" is
      "ALL", with the thresholds for searches in all verticals. A row has the numbers of `val_items`
      that its thresholds are fitted to, of `gallery` images, of `queries` and of `parts`, the
      verticals with thresholds of their own, and for each of `levels`: `promised`, the allowed
      share of false accepts; `threshold`, None with too few val items; `measured_parts` and
      `measured_queries`, those that have a threshold and queries; `false_accepts`, the share of
      queries accepted after their item was removed, with its 95 % interval; and
      `accepted_and_right`, the share of queries with an answer whose nearest
      image is accepted and shows their item. The last two are None without queries.
    """
    is_val, is_measured = splits == "val", (splits == split) & (split != "val")
    inside = catalogue.by_vertical()
    everywhere = {ALL: np.sort(np.concatenate([*inside.values(), np.zeros(0, np.int64)]))}
    rows, own = [], {}
    for scope, parts in ((WITHIN, inside), (MERGED, everywhere)):
        for name, some in parts.items():
            fitted = _search(embeddings, catalogue, some, is_val)
            measured = _search(embeddings, catalogue, some, is_measured)
            thresholds = [absent_threshold(fitted.other, fitted.items, level) for level in LEVELS]
            facts = {
                "val_items": len(np.unique(fitted.items)),
                "gallery": int(catalogue.is_gallery[some].sum()),
            }
            rows.append(_row(scope, name, facts, {name: (measured, thresholds)}, seed))
            if scope == WITHIN:
                own[name] = measured, thresholds
        if scope == WITHIN:
            totals = {key: sum(row[key] for row in rows) for key in ("val_items", "gallery")}
            rows.append(_row(scope, ALL, totals, own, seed))
    return {"split": split, "rows": rows}


def thresholds_of(absent: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the thresholds in `absent.json` that a search needs.

    Returns:
      Thresholds by level, as text such as "0.05", and then by vertical; "ALL" is the threshold of a
      search in all verticals. If a threshold is missing, nothing is accepted.
    """
    found: dict[str, dict[str, float]] = {f"{level:g}": {} for level in LEVELS}
    for row in absent["rows"]:
        for one in row["levels"]:
            if one["threshold"] is not None:
                found[f"{one['promised']:g}"][row["vertical"]] = one["threshold"]
    return found


def _row(
    scope: str,
    name: str,
    facts: Mapping[str, int],
    parts: Mapping[str, tuple[_Found, list[float | None]]],
    seed: int,
) -> dict[str, Any]:
    """Returns a row of `absent.json` for the queries and thresholds of some verticals."""
    levels = []
    for place, level in enumerate(LEVELS):
        fitted = {name: (found, values[place]) for name, (found, values) in parts.items()}
        threshold = fitted[name][1] if name in fitted else None
        levels.append({"promised": level, "threshold": threshold, **_figures(fitted, seed)})
    queries = sum(len(found.items) for found, _ in parts.values())
    facts = {**facts, "queries": queries, "parts": len(parts)}
    return {"scope": scope, "vertical": name, **facts, "levels": levels}


def _figures(
    parts: Mapping[str, tuple[_Found, float | None]], seed: int
) -> dict[str, float | None]:
    """Returns means over the verticals that have both a threshold and queries."""
    known = {
        name: (found, threshold)
        for name, (found, threshold) in parts.items()
        if threshold is not None and len(found.items)
    }
    figures: dict[str, float | None] = {
        "measured_parts": len(known),
        "measured_queries": sum(len(found.items) for found, _ in known.values()),
        **dict.fromkeys(
            ("false_accepts", "false_accepts_low", "false_accepts_high", "accepted_and_right")
        ),
    }
    if known:
        accepted = [(found.other < threshold).astype(float) for found, threshold in known.values()]
        figures["false_accepts"] = float(np.mean([values.mean() for values in accepted]))
        figures["false_accepts_low"], figures["false_accepts_high"] = stratified_bootstrap_interval(
            np.concatenate(accepted),
            np.concatenate([found.items for found, _ in known.values()]),
            np.repeat(list(known), [len(values) for values in accepted]),
            seed,
            possible=(0.0, 1.0),
        )
    shares = [
        (found.is_right & (found.nearest < threshold))[found.is_present].mean()
        for found, threshold in known.values()
        if found.is_present.any()
    ]
    if shares:
        figures["accepted_and_right"] = float(np.mean(shares))
    return figures


def _search(
    embeddings: np.ndarray, catalogue: EvaluationSet, some: np.ndarray, is_chosen: np.ndarray
) -> _Found:
    """Searches with the chosen queries among some images in the gallery among them."""
    is_query, shown = catalogue.is_query[some] & is_chosen[some], catalogue.is_gallery[some]
    chosen, gallery = some[is_query], some[shown]
    names, codes = np.unique(catalogue.items[some], return_inverse=True)
    own, theirs = codes[is_query], codes[shown]
    queries, vectors, records = embeddings[chosen], embeddings[gallery], catalogue.records
    places, distances = _nearest(queries, vectors, records[chosen], records[gallery])
    # Items take the place of records here, which leaves out all images of the query's item.
    _, other = _nearest(queries, vectors, own, theirs)
    in_gallery = np.bincount(theirs, minlength=len(names))[own]
    return _Found(
        items=catalogue.items[chosen],
        other=other,
        nearest=distances,
        is_right=(places >= 0) & (np.append(theirs, -1)[places] == own),
        is_present=in_gallery > shown[is_query],
    )


def _nearest(
    queries: np.ndarray, gallery: np.ndarray, own: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns position and distance of each query's nearest image; -1 and infinity without one."""
    if not len(gallery):
        return np.full(len(queries), -1), np.full(len(queries), np.inf)
    places, distances = nearest(queries, gallery, 1, own, theirs)
    return places[:, 0], distances[:, 0]
