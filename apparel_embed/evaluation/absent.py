"""From what distance on a query's nearest image is taken for the same item, and how often wrongly.

A query whose item is not in the catalogue still has a nearest image, of another item. The distance
to it says how near other items come; a threshold below nearly all such distances lets few absent
queries pass. Distances of split val give the thresholds, those of the evaluated split measure them.
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
"""Shares of absent queries that may be accepted."""
Verdict = Literal["same item", "similar only"]
SAME: Verdict = "same item"
SIMILAR: Verdict = "similar only"


def absent_threshold(
    distances: Sequence[float] | np.ndarray, items: Sequence[str] | np.ndarray, level: float
) -> float | None:
    """Returns the distance below which a query is accepted, so that few absent ones are.

    Split conformal prediction over items, whose queries are alike (Lee, Barber and Willett,
    "Distribution-free inference with hierarchical data", 2023): every item weighs the same, and one
    more stands for that of the query to come. If items are exchangeable, a query of a new one is
    accepted with a probability of at most `level`.

    Args:
      distances: [n] from each query to the nearest image of another item; infinite without one.
      items: [n] the item of each query.
      level: share of absent queries that may be accepted, between 0 and 1.

    Returns:
      The threshold; None where `level` asks for more items than there are: at least 1 / level - 1.

    Example:
      >>> absent_threshold([0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "d"], 0.4)
      0.2
    """
    distances = np.asarray(distances, np.float64)
    _, codes, counts = np.unique(np.asarray(items), return_inverse=True, return_counts=True)
    order = np.argsort(distances, kind="stable")
    # Sums of weights and levels are rounded.
    budget = level * (len(counts) + 1) - 1 + 1e-9
    passed = np.cumsum(1 / counts[codes[order]])
    if budget < 0 or not len(order):
        return None
    found = distances[order[np.searchsorted(passed, budget, side="right")]]
    return float(found) if np.isfinite(found) else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """What queries find.

    Attributes:
      items: [m] of each query.
      other: [m] distance to the nearest image of another item; infinite without one.
      nearest: [m] distance to the nearest image; infinite without one.
      is_right: [m] whether that is of the query's item.
      is_present: [m] whether another image of the query's item is there to be found.
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

    All search the same gallery, of all splits, as the index of a run has it: the more images there
    are, the nearer is the nearest of another item.

    Args:
      embeddings: [n, dim] of the images of the catalogue, in its order.
      catalogue: the gallery of all splits, and the queries of split val and of the other.
      splits: [n] str, of each image.
      split: whose queries are measured; of "val", none are, for the thresholds are fitted to them.
      seed: of the bootstrap.

    Returns:
      The content of `absent.json`: `split`, and `rows`: of scope "within" each vertical, with its
      own thresholds, and "ALL", their mean over verticals; of scope "merged" "ALL", with those for
      searches in all verticals. A row has the number of `val_items` that its thresholds are fitted
      to, of `gallery` images and `queries`, and for each of `levels`: `promised`, the share of
      queries whose item is absent that may be accepted; `threshold`, None where there are too few
      val items for it; and, None without queries, `false_accepts`, the share accepted though their
      item was removed, its 95 % interval, and `accepted_and_right`, the share of queries with an
      answer whose nearest image is accepted, and of their item.
    """
    is_val, is_asked = splits == "val", (splits == split) & (split != "val")
    inside = catalogue.by_vertical()
    everywhere = {ALL: np.sort(np.concatenate([*inside.values(), np.zeros(0, np.int64)]))}
    rows, own = [], {}
    for scope, parts in ((WITHIN, inside), (MERGED, everywhere)):
        for name, some in parts.items():
            fitted = _ask(embeddings, catalogue, some, is_val)
            asked = _ask(embeddings, catalogue, some, is_asked)
            thresholds = [absent_threshold(fitted.other, fitted.items, level) for level in LEVELS]
            facts = {
                "val_items": len(np.unique(fitted.items)),
                "gallery": int(catalogue.is_gallery[some].sum()),
            }
            rows.append(_row(scope, name, facts, {name: (asked, thresholds)}, seed))
            if scope == WITHIN:
                own[name] = asked, thresholds
        if scope == WITHIN:
            totals = {key: sum(row[key] for row in rows) for key in ("val_items", "gallery")}
            rows.append(_row(scope, ALL, totals, own, seed))
    return {"split": split, "rows": rows}


def thresholds_of(absent: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns what a search needs of `absent.json`.

    Returns:
      By level, as text such as "0.05", thresholds by vertical; under "ALL" that of a search in all
      verticals. One that is not there accepts nothing.
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
    parts: Mapping[str, tuple[_Asked, list[float | None]]],
    seed: int,
) -> dict[str, Any]:
    """Returns a row of `absent.json`, made of the queries and thresholds of some verticals."""
    levels = []
    for place, level in enumerate(LEVELS):
        fitted = {name: (asked, found[place]) for name, (asked, found) in parts.items()}
        threshold = fitted[name][1] if name in fitted else None
        levels.append({"promised": level, "threshold": threshold, **_figures(fitted, seed)})
    queries = sum(len(asked.items) for asked, _ in parts.values())
    return {"scope": scope, "vertical": name, **facts, "queries": queries, "levels": levels}


def _figures(
    parts: Mapping[str, tuple[_Asked, float | None]], seed: int
) -> dict[str, float | None]:
    """Returns means over the verticals that have a threshold and queries to measure it."""
    found: dict[str, float | None] = dict.fromkeys(
        ("false_accepts", "false_accepts_low", "false_accepts_high", "accepted_and_right")
    )
    known = {
        name: (asked, threshold)
        for name, (asked, threshold) in parts.items()
        if threshold is not None and len(asked.items)
    }
    if known:
        accepted = [(asked.other < threshold).astype(float) for asked, threshold in known.values()]
        found["false_accepts"] = float(np.mean([values.mean() for values in accepted]))
        found["false_accepts_low"], found["false_accepts_high"] = stratified_bootstrap_interval(
            np.concatenate(accepted),
            np.concatenate([asked.items for asked, _ in known.values()]),
            np.repeat(list(known), [len(values) for values in accepted]),
            seed,
            possible=(0.0, 1.0),
        )
    shares = [
        (asked.is_right & (asked.nearest < threshold))[asked.is_present].mean()
        for asked, threshold in known.values()
        if asked.is_present.any()
    ]
    if shares:
        found["accepted_and_right"] = float(np.mean(shares))
    return found


def _ask(
    embeddings: np.ndarray, catalogue: EvaluationSet, some: np.ndarray, is_asked: np.ndarray
) -> _Asked:
    """Returns what the queries find that are asked, of some images in the gallery among them."""
    asks, shown = catalogue.is_query[some] & is_asked[some], catalogue.is_gallery[some]
    asked, gallery = some[asks], some[shown]
    names, codes = np.unique(catalogue.items[some], return_inverse=True)
    own, theirs = codes[asks], codes[shown]
    queries, vectors, records = embeddings[asked], embeddings[gallery], catalogue.records
    places, found = _nearest(queries, vectors, records[asked], records[gallery])
    # As if an item were one record: all images of the query's item are left out.
    _, other = _nearest(queries, vectors, own, theirs)
    in_gallery = np.bincount(theirs, minlength=len(names))[own]
    return _Asked(
        items=catalogue.items[asked],
        other=other,
        nearest=found,
        is_right=(places >= 0) & (np.append(theirs, -1)[places] == own),
        is_present=in_gallery > shown[asks],
    )


def _nearest(
    queries: np.ndarray, gallery: np.ndarray, own: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the place and the distance of the nearest of each query; -1, infinite without one."""
    if not len(gallery):
        return np.full(len(queries), -1), np.full(len(queries), np.inf)
    places, distances = nearest(queries, gallery, 1, own, theirs)
    return places[:, 0], distances[:, 0]
