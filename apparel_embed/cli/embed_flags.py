"""Flags of bulk embedding, and the configuration built from them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from apparel_embed.cli.define import DATA, WHERE, ConfigFlags, define
from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import is_uri
from apparel_embed.common.text import counted
from apparel_embed.data.images import ImageSettings
from apparel_embed.data.prepare_plan import PHOTOGRAPH_SIDE
from apparel_embed.inference.bulk import Run, bulk_embed, plan_embedding, run_here
from apparel_embed.inference.bulk_cluster import run_on_cluster
from apparel_embed.inference.bulk_shard import BulkConfig, Embed
from apparel_embed.inference.bulk_sources import SOURCES, SourceConfig


class EmbedFlags:
    """Flags for what to embed, with which model, on which machines, and the output."""

    def __init__(self) -> None:
        self._model = define(
            "model",
            None,
            "a SavedModel's directory, or a stage of a run such as runs/mine/student",
            required=True,
        )
        self._output = define(
            "output", None, "directory to write: a path, or gs://, s3:// or hdfs://", required=True
        )
        self._sources = {
            kind: define(kind, None, what)
            for kind, what in (
                ("prepared", "prepared dataset to embed"),
                (
                    "manifest",
                    "CSV or Parquet file to embed, with a column image and, optionally, a box; "
                    "other columns are kept",
                ),
                ("images", "directory of images to embed, including subdirectories"),
            )
        }
        self._detect = define(
            "detect",
            False,
            "write one row per garment that is detected in an image, with columns garment_box "
            "(fractions of the upright image's width and height), garment_score and "
            "garment_vertical; requires a SavedModel with a detector",
        )
        self._bulk = ConfigFlags(BulkConfig)
        self._source = ConfigFlags(SourceConfig)
        self._cluster = define(
            "cluster",
            None,
            "address of a Dask scheduler whose workers embed, e.g. tcp://host:8786; images, model "
            "and output must have the same paths on all workers. By default this process embeds",
            group=WHERE,
        )
        self._image = ConfigFlags(ImageSettings, DATA)
        self._threads = define(
            "threads",
            0,
            "threads that prepare images, in this process or each worker, 0 for one per core; the "
            "result does not depend on it",
            0,
            256,
            group=WHERE,
        )

    def run(self) -> tuple[str, dict[str, Any]]:
        """Embeds; returns the output directory and the summary.

        Raises:
          UserError: a flag, or the file it names, is wrong.
        """
        # Imported here so that --help does not wait for TensorFlow.
        from apparel_embed.serving.local import load_garment_embedder, load_image_embedder

        config = self._config()
        model = self._as_seen_by_workers(self._model.value)
        loader = load_garment_embedder if self._detect.value else load_image_embedder
        load: Callable[[], Embed] = functools.partial(loader, model)
        return config.output, bulk_embed(config, self._run(load))

    def plan(self) -> str:
        """Returns a sentence about what `run` would do. Raises the same errors as `run`."""
        config = self._config()
        state, images, left = plan_embedding(config)
        batches = -(-left // config.batch_size)
        return (
            f"{config.output}: {state} ({counted(images, 'image')}, {left:,} to embed, in "
            f"{counted(batches, 'batch', 'batches')} of {config.batch_size})"
        )

    def _config(self) -> BulkConfig:
        from apparel_embed.serving.local import model_fingerprint

        return self._bulk.config(
            source=self._source_config(),
            model_fingerprint=model_fingerprint(self._as_seen_by_workers(self._model.value))
            + ("/garments" if self._detect.value else ""),
            output=self._as_seen_by_workers(self._output.value),
        )

    def _as_seen_by_workers(self, location: str) -> str:
        """Returns an absolute path if there are workers, which start in other directories."""
        if not self._cluster.value or is_uri(location):
            return location.rstrip("/")
        return os.path.abspath(location)

    def _source_config(self) -> SourceConfig:
        given = [kind for kind in SOURCES if self._sources[kind].value]
        if len(given) != 1:
            raise UserError(
                f"expected exactly one of {', '.join(f'--{kind}' for kind in SOURCES)}, got "
                f"{' and '.join(f'--{kind}' for kind in given) or 'none'}"
            )
        sides = {}
        if self._detect.value and not self._image.is_given("max_side"):
            sides = {"max_side": PHOTOGRAPH_SIDE}
        return self._source.config(
            kind=given[0],
            location=self._as_seen_by_workers(self._sources[given[0]].value),
            settings=self._image.config(**sides),
        )

    def _run(self, load: Callable[[], Embed]) -> Run:
        common = {"load": load, "threads": self._threads.value}
        if self._cluster.value:
            return functools.partial(run_on_cluster, address=self._cluster.value, **common)
        return functools.partial(run_here, **common)
