"""Reads a prepared dataset: images by record number, and the columns of the manifest."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from array_record.python import array_record_module

from apparel_embed.common.errors import UserError, check_format
from apparel_embed.common.files import read_json
from apparel_embed.data.columns import ranked_codes_of
from apparel_embed.data.images import ImageSettings
from apparel_embed.data.manifest import ROLES, SPLITS

SCHEMA_VERSION = 3
DATASET_FILE = "dataset.json"
INDEX_FILE = "index.parquet"
REJECTS_FILE = "rejects.csv"
_READ_AT_ONCE = 256

# Single records are read in any order: reading ahead would be wasted.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of shard number `shard` (from 0) of `shards`."""
    return f"records-{shard:05d}-of-{shards:05d}.array_record"


class PreparedDataset:
    r"""A finished prepared dataset, opened with `open`.

    Thread-safe.

    Attributes:
      directory: directory of the dataset.
      fingerprint: SHA-256 (hex) of the contents of all shards and of the index.
      index: one row per record, in record order: `record` (int64) and the manifest's columns.
      verticals: names of the verticals, sorted.
      info: contents of dataset.json: counts, settings, shards.

    Examples:
      >>> dataset = PreparedDataset.open("data/prepared")
      >>> len(dataset), dataset.verticals
      (64, ('bags', 'dresses'))
      >>> dataset.read_images(dataset.select(split="test")[:1])[0][:2]  # JPEG
      b'\xff\xd8'
    """

    def __init__(self, directory: Path, info: dict[str, Any], index: pa.Table):
        self.directory = directory
        self.fingerprint: str = info["fingerprint"]
        self.index = index
        self.info = info
        self.verticals: tuple[str, ...] = tuple(sorted(info["counts"]))
        self._shards = [directory / shard["file"] for shard in info["shards"]]
        # _starts[i] is the first record of shard i; the last entry is the number of records.
        self._starts = np.cumsum([0] + [shard["records"] for shard in info["shards"]])
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> PreparedDataset:
        """Opens a prepared dataset and checks that all its files exist and are complete.

        Args:
          directory: the --output of `tools/prepare_dataset.py`.

        Raises:
          UserError: if the directory does not exist, is not a finished prepared dataset or has
            another schema version, or if a file is missing or its size has changed.
        """
        directory = Path(directory)
        _check_directory(directory)
        info = _read_info(directory / DATASET_FILE)
        for shard in info["shards"]:
            path = directory / shard["file"]
            if not path.is_file():
                raise UserError(f"{path}: missing, but {DATASET_FILE} lists it; prepare again")
            size = path.stat().st_size
            if size != shard["bytes"]:
                raise UserError(
                    f"{path}: expected {shard['bytes']} bytes, got {size}: truncated or changed; "
                    "prepare again"
                )
        try:
            index = pq.read_table(directory / INDEX_FILE)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{directory / INDEX_FILE}: cannot be read: {error}") from error
        listed = sum(shard["records"] for shard in info["shards"])
        if not index.num_rows == info["records"] == listed:
            raise UserError(
                f"{directory}: {INDEX_FILE} has {index.num_rows} records, the shards {listed}, "
                f"{DATASET_FILE} {info['records']}: they must be equal; prepare again"
            )
        return cls(directory, info, index)

    def __len__(self) -> int:
        return self.index.num_rows

    @property
    def image_settings(self) -> ImageSettings:
        """How its images were prepared."""
        made = self.info["settings"]
        return ImageSettings(made["max_side"], made["crop_margin"], made["jpeg_quality"])

    @property
    def reject_count(self) -> int:
        """Number of images of the manifest that were rejected."""
        return self.info["rejects"]

    def column(self, name: str) -> np.ndarray:
        """Returns a column of the index: `record`, or any column of the manifest.

        Returns:
          An array [len(self)]: int64 for `record`, float64 for the box (NaN without a box),
          otherwise objects of type str.

        Raises:
          UserError: if the manifest had no such column.
        """
        return self._column(name).to_numpy()

    def codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a text column as codes, which need less memory and time.

        Returns:
          int32 [len(self)], the index of each record's text among the distinct texts, sorted; and
          these texts.

        Raises:
          UserError: if the manifest had no such column.
        """
        codes, texts = ranked_codes_of(self._column(name))
        return codes, texts.to_numpy(zero_copy_only=False)

    def select(
        self,
        *,
        split: str | None = None,
        verticals: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Returns the records that satisfy all given conditions.

        Args:
          split: `train`, `val`, `test` or `unlabelled`; None for all. Unlabelled records may have
            an empty `item_id`.
          verticals: names of verticals; None for all.
          roles: some of `query`, `gallery`, `both`; None for all. The queries of a split are
            the records with role `query` or `both`.

        Returns:
          int64 record numbers, ascending.

        Raises:
          UserError: if a split, vertical or role is unknown.
        """
        chosen = pa.chunked_array([pa.repeat(pa.scalar(True), len(self))])
        conditions = (
            ("split", None if split is None else (split,), SPLITS),
            ("vertical", verticals, self.verticals),
            ("role", roles, ROLES),
        )
        for column, wanted, known in conditions:
            if wanted is None:
                continue
            if isinstance(wanted, str):
                raise TypeError(f"{column}: expected a sequence of names, got {wanted!r}")
            for value in wanted:
                if value not in known:
                    raise UserError(
                        f"{self.directory}: unknown {column} {value!r}; "
                        f"expected one of {', '.join(known)}"
                    )
            matches = pc.is_in(self.index[column], value_set=pa.array(wanted, pa.string()))
            chosen = pc.and_(chosen, matches)
        return np.flatnonzero(chosen.to_numpy()).astype(np.int64)

    def read_images(self, records: Sequence[int] | np.ndarray) -> list[bytes]:
        """Returns images as JPEG bytes.

        Args:
          records: record numbers in [0, len(self)), in any order; they may repeat.

        Returns:
          One JPEG file (sRGB) per entry of `records`, in the same order.

        Raises:
          IndexError: if a record number is out of range.
          UserError: if a shard is damaged; the message names file and record.
        """
        wanted = np.asarray(records, np.int64).reshape(-1)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"records must be in [0, {len(self)})")
        images: list[bytes] = [b""] * wanted.size
        shard_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shard_of):
            places = np.flatnonzero(shard_of == shard)
            for place, image in zip(places, self._read_shard(int(shard), wanted[places])):
                images[place] = image
        return images

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.index.column_names:
            raise UserError(
                f"{self.directory}: no column {name!r}; "
                f"expected one of {', '.join(self.index.column_names)}"
            )
        return self.index[name]

    def check_records(self) -> None:
        """Reads every record, which takes as long as reading all shards once.

        Raises:
          UserError: if a shard is damaged; the message names file and record.
        """
        for start in range(0, len(self), _READ_AT_ONCE):
            self.read_images(range(start, min(start + _READ_AT_ONCE, len(self))))

    def _read_shard(self, shard: int, records: np.ndarray) -> list[bytes]:
        """Returns the images of `records`, all of which are in `shard`."""
        # Imported here: the workers of `prepare` import this module too and need not wait for
        # TensorFlow.
        from tensorflow.train import Example

        try:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = self._open_shard(shard)
                found = self._readers[shard].read((records - self._starts[shard]).tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._find_damage(shard, records, error) from error
        images = []
        for record, serialised in zip(records, found):
            try:
                features = Example.FromString(serialised).features.feature
                stored = features["record"].int64_list.value[0]
                image = features["image"].bytes_list.value[0]
            except Exception as error:
                raise self._damaged(shard, int(record), error) from error
            if stored != record:
                raise self._damaged(shard, int(record), f"it contains record {stored}")
            images.append(image)
        return images

    def _open_shard(self, shard: int) -> Any:
        return array_record_module.ArrayRecordReader(str(self._shards[shard]), _READER_OPTIONS)

    def _find_damage(self, shard: int, records: np.ndarray, error: Exception) -> UserError:
        """Returns an error that names the first of `records` that cannot be read."""
        for record in records:
            try:
                # A reader that failed stays in a failed state, so each record needs a new one.
                self._open_shard(shard).read([int(record - self._starts[shard])])
            except (RuntimeError, ValueError, IndexError) as single:
                return self._damaged(shard, int(record), single)
        return self._damaged(shard, int(records[0]), error)

    def _damaged(self, shard: int, record: int, error: object) -> UserError:
        reason = " ".join(str(error).split())
        return UserError(
            f"{self._shards[shard]}: record {record} is damaged ({reason}); prepare again"
        )


def load_prepared(directory: str | os.PathLike[str]) -> PreparedDataset:
    """Opens a prepared dataset.

    Args:
      directory: output of `prepare` or `tools/prepare_dataset.py`.

    Returns:
      The dataset; its images are read on request.

    Raises:
      UserError: if it is not a finished prepared dataset or is damaged; the message names the file.

    Examples:
      >>> dataset = load_prepared("data/prepared")
      >>> records = dataset.select(split="train", verticals=["dresses"])
      >>> len(records), dataset.column("item_id")[records[0]]
      (16, 'item0')
    """
    return PreparedDataset.open(directory)


def _check_directory(directory: Path) -> None:
    """Raises a UserError unless `directory` looks like a finished prepared dataset."""
    if (directory / DATASET_FILE).is_file() and not directory.name.endswith(".partial"):
        return
    partial = directory.with_name(f"{directory.name}.partial")
    if directory.name.endswith(".partial") or (not directory.exists() and partial.is_dir()):
        raise UserError(f"{directory}: is still partial; run prepare again to finish it")
    if not directory.exists():
        raise UserError(
            f"{directory}: directory does not exist; create a prepared dataset with "
            "tools/prepare_dataset.py or tools/run_pipeline.py"
        )
    if not directory.is_dir():
        raise UserError(f"{directory}: is a file; expected the directory of a prepared dataset")
    raise UserError(f"{directory}: not a prepared dataset: it has no {DATASET_FILE}")


def _read_info(path: Path) -> dict[str, Any]:
    """Returns the contents of dataset.json after checking its version and fields."""
    try:
        info = read_json(path)
        info["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the {DATASET_FILE} of a prepared dataset") from error
    check_format(path.parent, "prepared dataset", info, SCHEMA_VERSION, "remove it, prepare again")
    missing = {"fingerprint", "counts", "records", "rejects", "shards"} - set(info)
    if missing:
        raise UserError(f"{path}: missing {', '.join(sorted(missing))}; prepare again")
    return info
