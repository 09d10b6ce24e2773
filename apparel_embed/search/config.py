"""Settings of the search service and of indexing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.common.settings import setting
from apparel_embed.data.images import LARGEST_MAX_PIXELS
from apparel_embed.data.manifest import SPLITS
from apparel_embed.evaluation.absent import LEVELS


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the service.

    Attributes:
      max_bytes: maximum bytes of an upload, whether of one image or of several.
      max_images: maximum images of one garment in one search.
      api_key: key required by every request except those for the page itself; "" for none.
    """

    max_bytes: int = 10_000_000
    max_images: int = 8
    max_pixels: int = setting(
        25_000_000,
        "maximum pixels of an uploaded image, read from its header before decoding",
        1,
        LARGEST_MAX_PIXELS,
        rare=True,
    )
    rate: float = setting(
        5.0,
        "sustained searches per second and client; 0 for no limit",
        0,
        1_000_000,
    )
    burst: int = setting(20, "searches that a client may make in a burst", 1, rare=True)
    workers: int = setting(2, "searches processed concurrently", 1, 256)
    waiting: int = setting(
        64,
        "searches that may wait for a worker; further ones are refused with 503",
        0,
        100_000,
        rare=True,
    )
    upload_seconds: float = setting(
        30.0, "maximum duration of an upload in seconds", 0.1, 3600.0, rare=True
    )
    api_key: str = ""


@dataclasses.dataclass(frozen=True)
class SearchSources:
    """The model and images of the search service.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset whose images are indexed, or None.
    """

    saved_model: Path
    prepared: Path | None
    images: Path | None = setting(
        None,
        "directory of the images added with --bulk or --delta; without it, their hits are shown "
        "without images",
    )
    serving_address: str = setting(
        "",
        "address of a TensorFlow Serving that embeds instead of this process: host:port for gRPC, "
        "http://host:port for REST",
    )
    false_accepts: str = setting(
        "0.05",
        'share of searches for items not in the catalogue that may be answered "same item"',
        choices=tuple(f"{level:g}" for level in LEVELS),
    )


@dataclasses.dataclass(frozen=True)
class IndexSource:
    """The images to index: the gallery of a prepared dataset, or bulk embeddings.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset; not opened if `bulk` is set.
    """

    saved_model: Path
    prepared: Path
    splits: tuple[str, ...] = setting(
        (),
        "index only images of this split; may be repeated; by default all splits",
        choices=SPLITS,
        flag="split",
    )
    embeddings: Path | None = setting(
        None,
        "Parquet file with columns `record` and `embedding`, from the same model; used instead of "
        "embedding the images again",
    )
    bulk: Path | None = setting(
        None,
        "Parquet file, or directory of Parquet files, with columns `image`, `item_id`, `vertical` "
        "and `embedding`, from the same model, to add to the index",
    )
