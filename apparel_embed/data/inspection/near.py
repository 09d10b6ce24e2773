"""Pairs of hashes that differ in few bits, found without comparing all with all."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

# Of hashes that agree in a band, each is compared with so many that follow it. More than this do
# so only where thousands of images are nearly the same.
MOST_NEIGHBOURS = 1000
_BLOCK = 1 << 18
# Number of ones in each 16 bits; NumPy 1 has no function for it.
_BYTES = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
_ONES = np.unpackbits(_BYTES, axis=1).sum(axis=1, dtype=np.uint8)

# Takes the places of the first and the second of pairs, and their distances; all int64 [pairs].
Found = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def find_close(
    hashes: np.ndarray, max_distance: int, found: Found, most_neighbours: int = MOST_NEIGHBOURS
) -> int:
    """Finds all pairs of hashes that differ in at most so many bits.

    Bits are dealt to one band more than bits may differ: whatever the differing bits are, such a
    pair agrees in a whole band (the pigeonhole principle; Norouzi et al. 2012, "Fast Search in
    Hamming Space with Multi-Index Hashing"). So only hashes that agree in a band are compared. Time
    grows with the number of those pairs, memory with n.

    Args:
      hashes: uint64 [n, words].
      max_distance: bits, at least 0, fewer than there are.
      found: called with parts of the pairs, the lower place first, each pair once.
      most_neighbours: with how many others of the same band each is compared at most.

    Returns:
      How many hashes have more neighbours than that in some band, of which pairs may be missing.
    """
    total, words = hashes.shape
    masks = _bands(words, max_distance + 1)
    crowded = np.zeros(total, bool)
    for number, mask in enumerate(masks):
        keys = _mixed(hashes & mask)
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], hashes[order]
        open_ones = np.arange(total)
        for step in itertools.count(1):
            open_ones = open_ones[: np.searchsorted(open_ones, total - step)]
            open_ones = open_ones[keys[open_ones] == keys[open_ones + step]]
            if not len(open_ones):
                break
            if step > most_neighbours:
                crowded[order[open_ones]] = True
                break
            for start in range(0, len(open_ones), _BLOCK):
                left = open_ones[start : start + _BLOCK]
                differing = ordered[left] ^ ordered[left + step]
                distance = count_bits(differing)
                close = np.flatnonzero(distance <= max_distance)
                # What agrees in an earlier band was found there.
                for earlier in masks[:number]:
                    close = close[(differing[close] & earlier).any(axis=1)]
                if len(close):
                    ends = np.sort([order[left[close]], order[left[close] + step]], axis=0)
                    found(ends[0], ends[1], distance[close])
    return int(crowded.sum())


def count_bits(words: np.ndarray) -> np.ndarray:
    """Returns the number of ones in each row of uint64 [n, words]; int64 [n]."""
    return _ONES[np.ascontiguousarray(words).view(np.uint16)].sum(axis=1, dtype=np.int64)


def _bands(words: int, bands: int) -> np.ndarray:
    """Returns the bits of each band, uint64 [bands, words]; neighbouring bits in different ones."""
    band = np.arange(words * 64) % bands
    member = band[np.newaxis] == np.arange(bands)[:, np.newaxis]
    return np.packbits(member, axis=1, bitorder="little").view(np.uint64)


def _mixed(words: np.ndarray) -> np.ndarray:
    """Returns one key for each row, uint64; that two rows share one by chance does no harm."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    key = np.zeros(len(words), np.uint64)
    for column in words.T:
        key = (key ^ column) * odd
    return key
