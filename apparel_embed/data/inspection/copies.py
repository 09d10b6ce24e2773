"""Finds copies of images, and images that differ only in colour, where they cause problems."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np

from apparel_embed.data.inspection.examine import Opened
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding, found
from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.inspection.near import MOST_NEIGHBOURS, find_close

# How similar two images are: the same file and crop, the same outlines and colours, the same
# outlines only.
EXACT, NEAR, RECOLOURED = ("exact", "near", "recoloured")
# How two images are related: one is trained on and the other evaluated; of two items; a query and
# a gallery image that answers it; otherwise of one item.
ACROSS_SPLITS, ACROSS_ITEMS = ("across_splits", "across_items")
ANSWER, WITHIN_ITEM = ("answer", "within_item")
# Relations in which a pair concerns both images.
_MUTUAL = (ACROSS_ITEMS, WITHIN_ITEM)
_NONE = np.iinfo(np.int64).max
_ROW_BITS = 32
_LEVELS = 256


class Copies:
    """The most similar other row of each row, by look and relation."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._stage = labels.stage
        # The score in the upper bits, the other row in the lower bits: the smallest value is the
        # most similar row, or the earliest of several.
        self._closest: dict[tuple[str, str], np.ndarray] = collections.defaultdict(
            lambda: np.full(len(labels), _NONE)
        )

    def offer(self, look: str, ends: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> None:
        """Adds pairs; each row keeps its closest one.

        Args:
          look: EXACT, NEAR or RECOLOURED.
          ends: rows of the manifest, int64 [pairs] twice.
          scores: int [pairs], lower is more similar.
        """
        for row, other in (ends, ends[::-1]):
            keys = scores.astype(np.int64) << _ROW_BITS | other
            related = self._relate(row, other)
            for relation in np.unique(related[related != ""]).tolist():
                chosen = related == relation
                np.minimum.at(self._closest[look, relation], row[chosen], keys[chosen])

    def pairs(self, look: str, relation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns pairs of a look and relation, each row with the one most similar to it.

        A pair that concerns both its images appears once, the later row first.

        Returns:
          Rows, their other rows, and scores, sorted by row.
        """
        closest = self._closest.get((look, relation), np.empty(0, np.int64))
        rows = np.flatnonzero(closest != _NONE)
        scores, others = np.divmod(closest[rows], 1 << _ROW_BITS)
        if relation in _MUTUAL:
            ends = np.maximum(rows, others), np.minimum(rows, others)
            (rows, others), first = np.unique(ends, axis=1, return_index=True)
            scores = scores[first]
        return rows, others, scores

    def _relate(self, row: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns the relation of each row to the other one, "" for none of interest."""
        item, stage = self._labels.item, self._stage
        is_query, is_gallery = self._labels.is_query, self._labels.is_gallery
        known = (item[row] >= 0) & (item[other] >= 0)
        judged = stage[row] > 0
        return np.select(
            [
                # A leak is reported for the evaluated image only, an answer for the query only.
                stage[row] > stage[other],
                (stage[row] != stage[other]) | ~known,
                item[row] != item[other],
                judged & is_query[row] & is_gallery[other],
                judged & is_query[other] & is_gallery[row],
            ],
            [ACROSS_SPLITS, "", ACROSS_ITEMS, ANSWER, ""],
            WITHIN_ITEM,
        )


def find_copies(copies: Copies, opened: Opened, hash_distance: int, colour_distance: int) -> int:
    """Finds images that look the same, or the same except for their colours.

    Args:
      copies: receives the pairs.
      opened: the images.
      hash_distance: maximum number of differing bits in the hashes of a pair.
      colour_distance: maximum difference in the colours of a part for a near-copy, in levels.

    Returns:
      The number of images with so many similar ones that pairs may be missing.
    """
    seen = np.flatnonzero(~opened.is_blank)
    rows, looks = opened.rows[seen], opened.looks[seen]
    content, colours = looks["content"], looks["colours"]

    def take(left: np.ndarray, right: np.ndarray, distance: np.ndarray) -> None:
        exact = (content[left] == content[right]).all(axis=1)
        difference = np.abs(colours[left].astype(np.int16) - colours[right])
        colour = difference.reshape(len(left), -1).max(axis=1)
        near = ~exact & (colour <= colour_distance)
        scores = distance * _LEVELS + colour
        for look, chosen in ((EXACT, exact), (NEAR, near), (RECOLOURED, ~exact & ~near)):
            copies.offer(look, (rows[left[chosen]], rows[right[chosen]]), scores[chosen])

    return find_close(np.ascontiguousarray(looks["outlines"]), hash_distance, take)


_LEAK = "among images used to train or to select weights: results will be too good."
_SPLIT_BY_GARMENT = "Put all images of a garment into one split, using a column of garment names."
_SAME_LABEL = "models learn to separate identical garments."
_EASY = "any model finds it."
_FEWER = "the item has fewer views than it seems."
# Severity, text and advice of the looks and relations of interest.
_MEANINGS = {
    (EXACT, ACROSS_SPLITS): (
        ERROR,
        f"of val or test {{have}} an exact copy {_LEAK}",
        _SPLIT_BY_GARMENT,
    ),
    # Only a warning: garments that differ in fine stripes look the same at this size.
    (NEAR, ACROSS_SPLITS): (
        WARNING,
        f"of val or test {{seem}} to have a near-copy {_LEAK}",
        f"Look at the pairs: they may differ in stripes too fine to see. {_SPLIT_BY_GARMENT}",
    ),
    (EXACT, ACROSS_ITEMS): (
        ERROR,
        f"{{have}} an exact copy under another item: {_SAME_LABEL}",
        "Give both the same item_id, or remove the wrong one.",
    ),
    (NEAR, ACROSS_ITEMS): (
        WARNING,
        f"{{seem}} to have a near-copy under another item: {_SAME_LABEL}",
        "Look at the pairs; give both the same item_id, or remove the wrong one.",
    ),
    (EXACT, ANSWER): (
        WARNING,
        f"{{have}} an exact copy as answer: {_EASY}",
        "Remove the copies, or give both the same role, query or gallery.",
    ),
    (NEAR, ANSWER): (
        WARNING,
        f"{{seem}} to have a near-copy as answer: {_EASY}",
        "Look at the pairs; remove the copies, or give both the same role, query or gallery.",
    ),
    (EXACT, WITHIN_ITEM): (
        NOTE,
        f"{{have}} an exact copy within the item: {_FEWER}",
        "Remove the copies.",
    ),
    (NEAR, WITHIN_ITEM): (
        NOTE,
        f"{{seem}} to have a near-copy within the item: {_FEWER}",
        "Remove redundant images.",
    ),
    (RECOLOURED, ACROSS_SPLITS): (
        WARNING,
        "of val or test {look} like images used to train or to select weights, except for colour "
        "or light: the same garment may be in two splits.",
        "If so, split by a column with one name for a garment in all its colours.",
    ),
    (RECOLOURED, ACROSS_ITEMS): (
        NOTE,
        "{look} like an image of another item except for colour or light, for instance a garment "
        "sold in several colours.",
        "Ignore this if each colour is its own item; otherwise give both the same item_id.",
    ),
}
# Findings about two images.
PAIR_CODES = frozenset("_".join(key) for key in _MEANINGS)


def copy_findings(copies: Copies, crowded: int = 0) -> Iterator[Finding]:
    """Yields findings about copies, in each the most similar pairs first.

    Args:
      copies: the pairs found.
      crowded: the number of images with so many similar ones that pairs may be missing.
    """
    yield from found(
        "many_alike",
        NOTE,
        crowded,
        "image",
        f"with hashes that partly agree with more than {MOST_NEIGHBOURS:,} others, not all of "
        "which were compared: some copies may be missed.",
        "Remove placeholder images or lower --hash_distance, and inspect again.",
    )
    for (look, relation), (severity, what, advice) in _MEANINGS.items():
        rows, others, scores = copies.pairs(look, relation)
        order = np.argsort(scores, kind="stable")
        rows, others, (bits, levels) = rows[order], others[order], np.divmod(scores[order], _LEVELS)
        images = len(np.unique([rows, others])) if relation in _MUTUAL else len(rows)
        one = images == 1
        verbs = {verb: f"{verb}s" if one else verb for verb in ("look", "seem")}
        differences = [
            f"outlines differ in {bit} of 256 bits, colours by {level} of 255"
            for bit, level in zip(bits.tolist(), levels.tolist())
        ]
        yield from found(
            f"{look}_{relation}",
            severity,
            images,
            "query" if relation == ANSWER else "image",
            what.format(have="has" if one else "have", **verbs),
            advice,
            rows=rows,
            others=others,
            details=differences if look != EXACT else "",
        )
