"""Compressed embeddings: how they are stored, what a search sees, and the effect on R@1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import markdown_table, plain_text
from apparel_embed.evaluation.table import DASH, signed_interval, with_interval

COMPRESSION_FILE = "compression.json"
_CODEWORDS = 256


@dataclasses.dataclass(frozen=True)
class Compressor:
    """A way to store embeddings.

    Attributes:
      bytes_per_image: size of a stored embedding.
      encode: float32 [n, dim] -> codes [n, ...], which are stored.
      decode: codes -> float32 [n, dim], which a search sees.
      queries_too: whether queries are encoded as well; otherwise they stay float32.
    """

    bytes_per_image: int
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]
    queries_too: bool = True


def make_compressor(kind: str, train: np.ndarray, *, pq_bytes: int, seed: int = 0) -> Compressor:
    """Returns a compressor, fitted to the training embeddings if it needs fitting.

    Args:
      kind: a name in `COMPRESSORS`.
      train: float32 [n, dim], embeddings of training images.
      pq_bytes: bytes of a product-quantised embedding; a divisor of `dim`.
      seed: seed for the codewords.

    Raises:
      UserError: if the kind is unknown or the embeddings are unsuitable.
    """
    if kind not in COMPRESSORS:
        raise UserError(f"compression is {kind!r}; expected one of {', '.join(COMPRESSORS)}")
    return COMPRESSORS[kind](np.asarray(train, np.float32), pq_bytes=pq_bytes, seed=seed)


def render_compression(record: Mapping[str, Any]) -> str:
    """Returns the content of `compression.json` as a Markdown table."""
    text = plain_text(
        f"R@1 within the vertical on split {record['split']}, mean over verticals; 95 % intervals "
        "over items in brackets; differences are paired over the same queries\n",
        markdown_table(
            ("what", "kind", "bytes", "R@1", "against float32"),
            (
                (row["what"], row["kind"], f"{row['bytes']:,}", *shares(row))
                for row in record["rows"]
            ),
            left=2,
        ),
    )
    return f"{text}\n"


def shares(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns R@1 of a row with its interval, and its difference from float32."""
    difference = DASH if row["kind"] == "float32" else signed_interval(row["difference"])
    return with_interval(row), difference


def _float16(train: np.ndarray, **_: int) -> Compressor:
    return Compressor(
        2 * train.shape[1],
        lambda embeddings: embeddings.astype(np.float16),
        lambda codes: codes.astype(np.float32),
    )


def _int8(train: np.ndarray, **_: int) -> Compressor:
    """Equal steps in each dimension, -127 to 127, over the range of the training embeddings."""
    step = np.maximum(np.abs(train).max(axis=0), 1e-9) / 127
    return Compressor(
        train.shape[1],
        lambda embeddings: np.clip(np.round(embeddings / step), -127, 127).astype(np.int8),
        lambda codes: codes.astype(np.float32) * step,
    )


def _binary(train: np.ndarray, **_: int) -> Compressor:
    """One bit per dimension, above or below the mean: Hamming distances up to a factor."""
    dim, mean = train.shape[1], train.mean(axis=0)
    return Compressor(
        -(-dim // 8),
        lambda embeddings: np.packbits(embeddings > mean, axis=1),
        lambda codes: 2.0 * np.unpackbits(codes, axis=1, count=dim).astype(np.float32) - 1,
    )


def _pq(train: np.ndarray, *, pq_bytes: int, seed: int) -> Compressor:
    """Product quantisation: one of 256 codewords for each part of the dimensions.

    Jegou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search" (2011). Distances
    are asymmetric: between the uncompressed query and the codewords of the gallery.
    """
    from sklearn.cluster import KMeans  # Imported here so that the report does not load it.

    dim = train.shape[1]
    if dim % pq_bytes:
        raise UserError(
            f"pq_bytes is {pq_bytes}; expected a divisor of the embedding's {dim} dimensions"
        )
    if len(train) < _CODEWORDS:
        raise UserError(
            f"product quantisation needs at least {_CODEWORDS} training embeddings, one per "
            f"codeword; got {len(train)}"
        )
    words = [
        KMeans(_CODEWORDS, n_init=1, max_iter=50, random_state=seed).fit(part).cluster_centers_
        for part in np.split(train, pq_bytes, axis=1)
    ]

    def encode(embeddings: np.ndarray) -> np.ndarray:
        codes = np.empty([len(embeddings), pq_bytes], np.uint8)
        for place, part in enumerate(np.split(embeddings, pq_bytes, axis=1)):
            squares = (words[place] ** 2).sum(axis=1) - 2 * part @ words[place].T
            codes[:, place] = squares.argmin(axis=1)
        return codes

    def decode(codes: np.ndarray) -> np.ndarray:
        found = [words[place][codes[:, place]] for place in range(pq_bytes)]
        return np.concatenate(found, axis=1).astype(np.float32)

    return Compressor(pq_bytes, encode, decode, queries_too=False)


COMPRESSORS: dict[str, Callable[..., Compressor]] = {
    "float16": _float16,
    "int8": _int8,
    "pq": _pq,
    "binary": _binary,
}
"""To add one, write a function and add a line here."""
