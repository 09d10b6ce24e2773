"""The same picture more than once, or alike but for its colours, where that does harm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding
from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.inspection.near import MOST_NEIGHBOURS, find_close

# How much two pictures look the same. The same file cropped alike; the same outlines and colours;
# the same outlines.
EXACT, NEAR, RECOLOURED = ("exact", "near", "recoloured")
# What two pictures have to do with each other: learnt from and judged by; of two items; a query and
# the gallery picture that answers it; of one item otherwise.
RELATIONS = ACROSS_SPLITS, ACROSS_ITEMS, ANSWER, WITHIN_ITEM = (
    "across_splits",
    "across_items",
    "answer",
    "within_item",
)
# Of these a pair concerns both its ends.
_MUTUAL = (ACROSS_ITEMS, WITHIN_ITEM)
_UNRELATED = -1
# A pair of any look and relation is of less interest than one of this.
_WORST_SCORE = np.iinfo(np.int32).max
_LEVELS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Looks:
    """How m pictures look.

    Attributes:
      rows: int64 [m], ascending: the row of each in the manifest.
      content: uint64 [m, 2], the same for the same file cropped alike.
      outlines: uint64 [m, HASH_WORDS].
      colours: uint8 [m, PARTS, PARTS, 3].
      is_blank: bool [m], nothing to be seen on it, and so no outlines to compare.
    """

    rows: np.ndarray
    content: np.ndarray
    outlines: np.ndarray
    colours: np.ndarray
    is_blank: np.ndarray


class Copies:
    """For each row the row most like it, by look and relation."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._stage = labels.stage
        self._closest: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def offer(self, look: str, ends: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> None:
        """Keeps pairs that are closer than those known.

        Args:
          look: how much the two look the same.
          ends: rows of the manifest, int64 [pairs] twice.
          scores: int [pairs], the lower the more alike.
        """
        for row, other in (ends, ends[::-1]):
            related = self._relate(row, other)
            for number, relation in enumerate(RELATIONS):
                chosen = related == number
                if chosen.any():
                    self._keep((look, relation), row[chosen], other[chosen], scores[chosen])

    def pairs(self, look: str, relation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns pairs of a look and relation, each row with the one most like it.

        Where both ends of a pair are of interest it is there once, the later row first.

        Returns:
          Rows, the others, and scores; by rows.
        """
        if (look, relation) not in self._closest:
            return (np.empty(0, np.int64),) * 3
        partner, score = self._closest[look, relation]
        rows = np.flatnonzero(partner >= 0)
        others, scores = partner[rows].astype(np.int64), score[rows].astype(np.int64)
        if relation in _MUTUAL:
            ends = np.maximum(rows, others), np.minimum(rows, others)
            (rows, others), first = np.unique(ends, axis=1, return_index=True)
            scores = scores[first]
        return rows, others, scores

    def _relate(self, row: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns what rows have to do with others, places in RELATIONS or _UNRELATED."""
        item, stage = self._labels.item, self._stage
        known = (item[row] >= 0) & (item[other] >= 0)
        same_item = known & (item[row] == item[other])
        same_stage = stage[row] == stage[other]
        judged = same_item & (stage[row] > 0)
        asks = judged & self._labels.is_query[row] & self._labels.is_gallery[other]
        is_asked = judged & self._labels.is_query[other] & self._labels.is_gallery[row]
        return np.select(
            [
                # Of both ends only the one that judges is of interest.
                stage[row] > stage[other],
                ~same_stage | ~known,
                ~same_item,
                asks,
                is_asked,
            ],
            [
                RELATIONS.index(ACROSS_SPLITS),
                _UNRELATED,
                RELATIONS.index(ACROSS_ITEMS),
                RELATIONS.index(ANSWER),
                _UNRELATED,
            ],
            RELATIONS.index(WITHIN_ITEM),
        )

    def _keep(
        self, key: tuple[str, str], row: np.ndarray, other: np.ndarray, scores: np.ndarray
    ) -> None:
        """Replaces what is known of rows where something closer, or as close but earlier, is."""
        if key not in self._closest:
            total = len(self._labels)
            self._closest[key] = (
                np.full(total, -1, np.int32),
                np.full(total, _WORST_SCORE, np.int32),
            )
        partner, score = self._closest[key]
        order = np.lexsort((other, scores, row))
        row, other, scores = row[order], other[order], scores[order]
        best = np.flatnonzero(np.diff(row, prepend=-1) > 0)
        row, other, scores = row[best], other[best], scores[best]
        closer = (scores < score[row]) | ((scores == score[row]) & (other < partner[row]))
        partner[row[closer]], score[row[closer]] = other[closer], scores[closer]


def find_copies(copies: Copies, looks: Looks, hash_distance: int, colour_distance: int) -> int:
    """Finds pictures that look the same, or the same but for their colours.

    Args:
      copies: takes what is found.
      looks: of the pictures.
      hash_distance: bits in which hashes of the same outlines may differ.
      colour_distance: by how much colours of a part may differ where they are the same.

    Returns:
      How many pictures are so many times there that pairs of them may be missing.
    """
    seen = np.flatnonzero(~looks.is_blank)
    rows, content, colours = looks.rows[seen], looks.content[seen], looks.colours[seen]

    def found(left: np.ndarray, right: np.ndarray, distance: np.ndarray) -> None:
        exact = (content[left] == content[right]).all(axis=1)
        difference = np.abs(colours[left].astype(np.int16) - colours[right])
        colour = difference.reshape(len(left), -1).max(axis=1)
        near = ~exact & (colour <= colour_distance)
        scores = distance * _LEVELS + colour
        for look, chosen in ((EXACT, exact), (NEAR, near), (RECOLOURED, ~exact & ~near)):
            copies.offer(look, (rows[left[chosen]], rows[right[chosen]]), scores[chosen])

    return find_close(looks.outlines[seen], hash_distance, found)


_LEAK = (
    "among pictures that are learnt from or that weights are chosen by: figures will be too good."
)
_SPLIT_BY_GARMENT = "Put all pictures of a garment into one split, by a column that names garments."
_SAME_LABEL = "models learn to tell apart what is the same."
_EASY = "any model finds it."
_FEWER = "there are fewer views than it seems."
# Looks and relations that are of interest: how bad, what is to be said, what to do.
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
        "of val or test {look} like ones that are learnt from or that weights are chosen by, but "
        "for colour or light: the same garment may be in two splits.",
        "If so, split by a column that names the garment in all its colours.",
    ),
    (RECOLOURED, ACROSS_ITEMS): (
        NOTE,
        "{look} like one of another item but for colour or light, as where a garment is sold in "
        "several colours.",
        "Nothing, if a colour is an item of its own; else give both the same item_id.",
    ),
}
# Findings about two pictures.
PAIR_CODES = frozenset("_".join(key) for key in _MEANINGS)


def copy_findings(copies: Copies) -> Iterator[Finding]:
    """Yields what is to be said of copies, of each kind the most alike first."""
    for (look, relation), (severity, what, advice) in _MEANINGS.items():
        rows, others, scores = copies.pairs(look, relation)
        if not len(rows):
            continue
        order = np.argsort(scores, kind="stable")
        rows, others, scores = rows[order], others[order], scores[order]
        pictures = len(np.unique([rows, others])) if relation in _MUTUAL else len(rows)
        one = pictures == 1
        verbs = {"have": "has"} if one else {"have": "have"}
        verbs.update({verb: f"{verb}s" if one else verb for verb in ("look", "seem")})
        nouns = ("query", "queries") if relation == ANSWER else ("picture",)
        yield Finding(
            f"{look}_{relation}",
            severity,
            pictures,
            f"{counted(pictures, *nouns)} {what.format(**verbs)}",
            advice,
            rows=rows,
            others=others,
            details=_differences(scores) if look != EXACT else "",
        )


def _differences(scores: np.ndarray) -> list[str]:
    """Returns in words how far pairs are apart."""
    bits, levels = np.divmod(scores, _LEVELS)
    return [
        f"outlines differ in {bit} of 256 bits, colours by {level} of 255"
        for bit, level in zip(bits.tolist(), levels.tolist())
    ]


def crowded_finding(crowded: int) -> Finding:
    """Returns what is to be said where pairs may be missing."""
    return Finding(
        "many_alike",
        NOTE,
        crowded,
        f"{counted(crowded, 'picture')} with hashes that agree in part with more than "
        f"{MOST_NEIGHBOURS:,} others, of which not all were compared: copies may be missing.",
        "Remove placeholders or lower --hash_distance, and inspect again.",
    )
