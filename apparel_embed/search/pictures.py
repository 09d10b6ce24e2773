"""Where the service takes the pictures of the catalogue from: only what it knows, by number."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from apparel_embed.data.pictures import PictureSettings, RejectedPicture, prepare_picture
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.search.version import IndexedPicture


class PictureSource(Protocol):
    """Gives the pictures of an index."""

    def jpeg(self, picture: IndexedPicture) -> bytes | None:
        """Returns a picture as JPEG; None if it is not there."""


class PreparedPictures:
    """Pictures of a prepared dataset, by record number.

    Args:
      dataset: the one that the index was built from.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        self._dataset = dataset

    def jpeg(self, picture: IndexedPicture) -> bytes | None:
        """Returns a picture as JPEG; None if it is not there."""
        if not 0 <= picture.record < len(self._dataset):
            return None
        return self._dataset.read_images([picture.record])[0]


class FilePictures:
    """Pictures in files below one directory, shrunk when they are asked for.

    Args:
      root: the manifest's directory; nothing outside is ever opened.
      settings: how to prepare them.
    """

    def __init__(self, root: Path, settings: PictureSettings) -> None:
        self._root = root.resolve()
        self._settings = settings

    def jpeg(self, picture: IndexedPicture) -> bytes | None:
        """Returns a picture as JPEG; None if it is not there, or not below the root."""
        try:
            path = (self._root / picture.picture).resolve()
            if self._root not in path.parents:
                return None
            return prepare_picture(path, self._settings).jpeg
        except (RejectedPicture, OSError, ValueError):
            return None


class NoPictures:
    """For an index whose pictures lie elsewhere."""

    def jpeg(self, picture: IndexedPicture) -> bytes | None:
        """Returns None."""
        del picture
        return None


def example_records(dataset: PreparedDataset, per_vertical: int) -> list[int]:
    """Returns held-out queries to try the search with: the first of each vertical's items.

    Args:
      dataset: where they are; those of split test, else val, else train.
      per_vertical: how many of each vertical, each of another item.
    """
    examples = []
    for vertical in dataset.verticals:
        for split in ("test", "val", "train"):
            records = dataset.select(split=split, verticals=[vertical], roles=["query", "both"])
            if len(records):
                items = dataset.column("item_id")[records].astype(str)
                _, first = np.unique(items, return_index=True)
                examples += [int(records[place]) for place in sorted(first)[:per_vertical]]
                break
    return examples
