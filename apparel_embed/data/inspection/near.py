"""Finds pairs of hashes that differ in few bits without comparing all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

# Each hash is compared with at most this many that agree with it in a band. More agree only if
# thousands of images are nearly the same.
MOST_NEIGHBOURS = 1000
_BLOCK = 1 << 18
# Number of ones in each 16-bit value; NumPy 1 has no bit count.
_BYTES = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
_ONES = np.unpackbits(_BYTES, axis=1).sum(axis=1, dtype=np.uint8)

# Takes the indices of the first and second hash of each pair, and distances; all int64 [pairs].
Found = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def find_close(
    hashes: np.ndarray, max_distance: int, found: Found, most_neighbours: int = MOST_NEIGHBOURS
) -> int:
    """Finds all pairs of hashes that differ in at most `max_distance` bits.

    Bits are divided into `max_distance + 1` bands, so any such pair agrees in at least one whole
    band (the pigeonhole principle; Norouzi et al. 2012, "Fast Search in Hamming Space with
    Multi-Index Hashing"). Only hashes that agree in a band are compared. Time grows with the number
    of those pairs, memory with n.

    Args:
      hashes: uint64 [n, words].
      max_distance: bits, from 0 to fewer than a hash has.
      found: called with batches of pairs, the lower index first, each pair once.
      most_neighbours: the maximum number of comparisons per hash and band.

    Returns:
      The number of hashes with more neighbours in some band, whose pairs may be incomplete.
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
                # Pairs that agree in an earlier band were found there.
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
    """Returns the bit mask of each band, uint64 [bands, words]; bits are dealt out in turn."""
    band = np.arange(words * 64) % bands
    member = band[np.newaxis] == np.arange(bands)[:, np.newaxis]
    return np.packbits(member, axis=1, bitorder="little").view(np.uint64)


def _mixed(words: np.ndarray) -> np.ndarray:
    """Returns one key for each row, uint64; accidental collisions only cost time."""
    odd = np.uint64(0x9E3779B97F4A7C15)
    key = np.zeros(len(words), np.uint64)
    for column in words.T:
        key = (key ^ column) * odd
    return key
