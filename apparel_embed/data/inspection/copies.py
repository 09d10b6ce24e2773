"""The same image more than once, or alike but for its colours, where that does harm."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np

from apparel_embed.data.inspection.examine import Opened
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding, found
from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.inspection.near import MOST_NEIGHBOURS, find_close

# How much two images look the same. The same file cropped alike; the same outlines and colours;
# the same outlines.
EXACT, NEAR, RECOLOURED = ("exact", "near", "recoloured")
# What two images have to do with each other: learnt from and judged by; of two items; a query and
# the gallery image that answers it; of one item otherwise.
ACROSS_SPLITS, ACROSS_ITEMS = ("across_splits", "across_items")
ANSWER, WITHIN_ITEM = ("answer", "within_item")
# Of these a pair concerns both its ends.
_MUTUAL = (ACROSS_ITEMS, WITHIN_ITEM)
_NONE = np.iinfo(np.int64).max
_ROW_BITS = 32
_LEVELS = 256


class Copies:
    """For each row the row most like it, by look and relation."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._stage = labels.stage
        # The score in the upper bits, the other row in the lower: the least is the most alike, and
        # of those as much alike the earliest.
        self._closest: dict[tuple[str, str], np.ndarray] = collections.defaultdict(
            lambda: np.full(len(labels), _NONE)
        )

    def offer(self, look: str, ends: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> None:
        """Keeps pairs that are closer than those known.

        Args:
          look: how much the two look the same.
          ends: rows of the manifest, int64 [pairs] twice.
          scores: int [pairs], the lower the more alike.
        """
        for row, other in (ends, ends[::-1]):
            keys = scores.astype(np.int64) << _ROW_BITS | other
            related = self._relate(row, other)
            for relation in np.unique(related[related != ""]).tolist():
                chosen = related == relation
                np.minimum.at(self._closest[look, relation], row[chosen], keys[chosen])

    def pairs(self, look: str, relation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns pairs of a look and relation, each row with the one most like it.

        Where both ends of a pair are of interest it is there once, the later row first.

        Returns:
          Rows, the others, and scores; by rows.
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
        """Returns what rows have to do with others: a relation, or "" for nothing."""
        item, stage = self._labels.item, self._stage
        is_query, is_gallery = self._labels.is_query, self._labels.is_gallery
        known = (item[row] >= 0) & (item[other] >= 0)
        judged = stage[row] > 0
        return np.select(
            [
                # Of a leak only the end that judges is of interest, of an answer only the query.
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
    """Finds images that look the same, or the same but for their colours.

    Args:
      copies: takes what is found.
      opened: the images.
      hash_distance: bits in which hashes of the same outlines may differ.
      colour_distance: by how much colours of a part may differ where they are the same.

    Returns:
      How many images have so many like them that pairs may be missing.
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


_LEAK = "among images that are trained on or that weights are chosen by: figures will be too good."
_SPLIT_BY_GARMENT = "Put all images of a garment into one split, by a column that names garments."
_SAME_LABEL = "models learn to tell apart what is the same."
_EASY = "any model finds it."
_FEWER = "there are fewer views than it seems."
# Looks and relations that are of interest: how bad, what to say, what to do.
_MEANINGS = {
    (EXACT, ACROSS_SPLITS): (
        ERROR,
        f"of val or test {{have}} an exact copy {_LEAK}",
        _SPLIT_BY_GARMENT,
    ),
    # No more than a warning: what differs in fine stripes only looks the same at this size.
    (NEAR, ACROSS_SPLITS): (
        WARNING,
        f"of val or test {{seem}} to have a near-copy {_LEAK}",
        f"Look at the pairs: stripes may be too fine to tell them apart. {_SPLIT_BY_GARMENT}",
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
        "Remove the copies, or let column role keep them apart.",
    ),
    (NEAR, ANSWER): (
        WARNING,
        f"{{seem}} to have a near-copy as answer: {_EASY}",
        "Look at the pairs; remove the copies, or let column role keep them apart.",
    ),
    (EXACT, WITHIN_ITEM): (
        NOTE,
        f"{{have}} an exact copy within the item: {_FEWER}",
        "Remove the copies.",
    ),
    (NEAR, WITHIN_ITEM): (
        NOTE,
        f"{{seem}} to have a near-copy within the item: {_FEWER}",
        "Remove those that add nothing.",
    ),
    (RECOLOURED, ACROSS_SPLITS): (
        WARNING,
        "of val or test {look} like images that are trained on or that weights are chosen by, "
        "except for colour or light: the same garment may be in two splits.",
        "If so, split by a column that names the garment in all its colours.",
    ),
    (RECOLOURED, ACROSS_ITEMS): (
        NOTE,
        "{look} like one of another item but for colour or light, as where a garment is sold in "
        "several colours.",
        "Nothing, if a colour is an item of its own; else give both the same item_id.",
    ),
}
# Findings about two images.
PAIR_CODES = frozenset("_".join(key) for key in _MEANINGS)


def copy_findings(copies: Copies, crowded: int = 0) -> Iterator[Finding]:
    """Yields findings about copies, of each kind the most alike first.

    Args:
      copies: what was found.
      crowded: how many images have so many like them that pairs may be missing.
    """
    yield from found(
        "many_alike",
        NOTE,
        crowded,
        "image",
        f"with hashes that agree in part with more than {MOST_NEIGHBOURS:,} others, of which not "
        "all were compared: copies may be missing.",
        "Remove placeholders or lower --hash_distance, and inspect again.",
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
