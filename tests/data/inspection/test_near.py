import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.data.inspection.near import count_bits, find_close


def pairs_within(hashes, distance, **options):
    """Returns the pairs found, with their distances, and the number of crowded hashes."""
    found = []

    def take(left, right, bits):
        found.extend(zip(left.tolist(), right.tolist(), bits.tolist()))

    crowded = find_close(hashes, distance, take, **options)
    return sorted(found), crowded


def all_pairs_within(hashes, distance):
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    return [
        (i, j, int((bits[i] != bits[j]).sum()))
        for i in range(len(bits))
        for j in range(i + 1, len(bits))
        if (bits[i] != bits[j]).sum() <= distance
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 5, 10, 32]), st.integers(0, 40))
def test_the_result_equals_that_of_comparing_all_pairs(seed, distance, flips):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, (3, 4), dtype=np.uint64)[random.integers(0, 3, 40)]
    for _ in range(flips):
        rows, bits = np.arange(40), random.integers(0, 256, 40)
        change = random.random(40) < 0.5
        hashes[rows, bits // 64] ^= np.where(
            change, np.uint64(1) << (bits % 64).astype(np.uint64), np.uint64(0)
        )
    found, crowded = pairs_within(hashes, distance)
    assert found == all_pairs_within(hashes, distance)
    assert crowded == 0


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_hashes_give_no_pairs(count):
    assert pairs_within(np.zeros((count, 4), np.uint64), 10) == ([], 0)


def test_crowded_hashes_are_counted_and_nearest_neighbours_still_found():
    hashes = np.zeros((50, 4), np.uint64)
    found, crowded = pairs_within(hashes, 2, most_neighbours=10)
    assert {right - left for left, right, _ in found} == set(range(1, 11))
    assert crowded == 50 - 11
    assert len(pairs_within(hashes, 2, most_neighbours=49)[0]) == 50 * 49 // 2
    assert pairs_within(hashes, 2, most_neighbours=49)[1] == 0


def test_bits_are_counted():
    words = np.array([[0, 0], [2**64 - 1, 1], [0b1011, 2**63]], np.uint64)
    assert count_bits(words).tolist() == [0, 65, 4]
