"""What is searched, by whom, and what is indexed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.common.settings import setting
from apparel_embed.data.images import LARGEST_MAX_PIXELS
from apparel_embed.data.manifest import SPLITS
from apparel_embed.evaluation.absent import LEVELS


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the service allows.

    Attributes:
      max_bytes: of an upload: of an image, or of several together.
      max_images: of one garment that are searched by together.
      api_key: that every request but those of the page itself must bring; "" for none.
    """

    max_bytes: int = 10_000_000
    max_images: int = 8
    max_pixels: int = setting(
        25_000_000,
        "of an uploaded image, read from its header before it is decoded",
        1,
        LARGEST_MAX_PIXELS,
        seldom=True,
    )
    rate: float = setting(
        5.0,
        "searches per second that a client may make in the long run, 0 for any number",
        0,
        1_000_000,
    )
    burst: int = setting(20, "searches that a client may make at once", 1, seldom=True)
    workers: int = setting(2, "searches worked on at once", 1, 256)
    waiting: int = setting(
        64,
        "searches that may wait for a worker; more are refused with 503",
        0,
        100_000,
        seldom=True,
    )
    upload_seconds: float = setting(
        30.0, "how long an upload may take, in seconds", 0.1, 3600.0, seldom=True
    )
    api_key: str = ""


@dataclasses.dataclass(frozen=True)
class SearchSources:
    """What is searched with and in.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset whose images are indexed, or None.
    """

    saved_model: Path
    prepared: Path | None
    images: Path | None = setting(
        None,
        "directory of the images that --bulk or --delta added; without it, these hits have no "
        "images",
    )
    serving_address: str = setting(
        "",
        "TensorFlow Serving that embeds instead of this process: host:port for gRPC, "
        "http://host:port for REST",
    )
    false_accepts: str = setting(
        "0.05",
        'share of searches for an item that the catalogue lacks that may be answered "same item"',
        choices=tuple(f"{level:g}" for level in LEVELS),
    )


@dataclasses.dataclass(frozen=True)
class IndexSource:
    """What is indexed: a prepared dataset's gallery, or what bulk embedding wrote.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset; not opened with `bulk`.
    """

    saved_model: Path
    prepared: Path
    splits: tuple[str, ...] = setting(
        (),
        "index images of this split only; repeat it; by default all",
        choices=SPLITS,
        flag="split",
    )
    embeddings: Path | None = setting(
        None,
        "Parquet file of `record` and `embedding`, made by the same model, to use instead of "
        "embedding again",
    )
    bulk: Path | None = setting(
        None,
        "Parquet file, or directory of some, of `image`, `item_id`, `vertical` and `embedding`, "
        "made by the same model, to be added",
    )
