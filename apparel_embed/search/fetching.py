"""Fetches from an index until as many items are there as were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apparel_embed.search.version import Hit, IndexedPicture

# Takes how many images to fetch, hits whose items are wanted no more, and the effort, 0 for the
# usual one; returns the nearest of the other images.
Fetch = Callable[[int, Sequence[Hit], int], Sequence[Hit]]
# Most items have fewer images than this.
_IMAGES_PER_ITEM = 4


def group_of(picture: IndexedPicture, by_item: bool) -> str:
    """Returns what a hit counts as: its item, or itself if it has none or images are wanted."""
    return f"item {picture.item}" if by_item and picture.item else f"key {picture.key}"


def nearest_groups(
    fetch: Fetch, k: int, *, efforts: int = 1, by_item: bool = True, most: int = 16_384
) -> list[Hit]:
    """Returns the nearest image of each of the k nearest items; fewer only if there are fewer.

    An item of many images fills the first answer alone, so fetching goes on without the items that
    are there. An approximate search that runs dry is repeated from the start with more effort,
    since it may have missed the nearer ones.

    Args:
      fetch: asks the index; the greatest effort finds all that is there.
      k: how many items, 1 or more.
      efforts: how many efforts `fetch` knows.
      by_item: whether images of one item count as one; an image without an item counts for itself.
      most: images that may be fetched at once.

    Returns:
      Hits, nearest first.
    """
    found: dict[str, Hit] = {}
    for effort in range(efforts):
        found = {}
        limit = min(k * (_IMAGES_PER_ITEM if by_item else 1), most)
        while len(found) < k:
            hits = fetch(limit, list(found.values()), effort)
            if not hits:
                break
            for hit in sorted(hits, key=_order):
                found.setdefault(group_of(hit.picture, by_item), hit)
            limit = min(4 * limit, most)
        if len(found) >= k:
            break
    return sorted(found.values(), key=_order)[:k]


def _order(hit: Hit) -> tuple[float, str]:
    return hit.distance, hit.picture.key
