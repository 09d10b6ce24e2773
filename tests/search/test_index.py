"""Images are fetched until k items are found, whatever the index misses."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.search.index import Hit, IndexedImage, group_of, nearest_groups


def hits_of(items, distances):
    """Hits in order of distance; "" means no item."""
    hits = [
        Hit(IndexedImage(f"{place:032x}", f"{place}.jpg", item, "bag"), float(distance))
        for place, (item, distance) in enumerate(zip(items, distances))
    ]
    return sorted(hits, key=lambda hit: (hit.distance, hit.image.key))


def exact(hits, k, by_item):
    """The nearest image of each of the k nearest groups, by exhaustive search."""
    nearest = {}
    for hit in hits:
        nearest.setdefault(group_of(hit.image, by_item), hit)
    return list(nearest.values())[:k]


@settings(max_examples=150, deadline=None)
@given(
    images=st.lists(st.tuples(st.sampled_from(["", *"abcdef"]), st.integers(0, 50)), max_size=60),
    k=st.integers(1, 20),
    by_item=st.booleans(),
    most=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_the_result_equals_that_of_an_exhaustive_search(images, k, by_item, most, seed):
    hits = hits_of(*zip(*images)) if images else []
    lost = np.random.default_rng(seed).random(len(hits)) < 0.7

    def fetch(limit, found, effort):
        assert 1 <= limit <= most
        without = {group_of(hit.image, by_item) for hit in found}
        # The usual effort misses most images, the greatest effort none.
        return [
            hit
            for hit, is_lost in zip(hits, lost)
            if group_of(hit.image, by_item) not in without and (effort == 1 or not is_lost)
        ][:limit]

    found = nearest_groups(
        lambda limit, some, effort: fetch(limit, some, 1), k, by_item=by_item, most=most
    )
    lossy = nearest_groups(fetch, k, efforts=2, by_item=by_item, most=most)

    assert found == exact(hits, k, by_item)
    assert len(lossy) == len(found)
    if len(found) < k:
        assert lossy == found


def test_an_item_of_a_hundred_images_does_not_hide_others():
    hits = hits_of(["near"] * 100 + ["a", "b", ""], range(103))

    def fetch(limit, found, effort):
        without = {group_of(hit.image, True) for hit in found}
        return [hit for hit in hits if group_of(hit.image, True) not in without][:limit]

    found = nearest_groups(fetch, 4)
    assert [hit.image.item for hit in found] == ["near", "a", "b", ""]
    assert [hit.distance for hit in found] == [0, 100, 101, 102]
