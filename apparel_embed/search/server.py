"""Assembles the search service of a run, and serves it with uvicorn."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings, RejectedImage, prepare_image
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.items import ITEM
from apparel_embed.evaluation.split import ALL
from apparel_embed.search.config import Limits, SearchSources
from apparel_embed.search.index import IndexedImage, VectorIndex, Version
from apparel_embed.search.matching import answering_version, dataset_of, fits
from apparel_embed.search.observe import LOGGER, JsonFormatter
from apparel_embed.search.searcher import Searcher
from apparel_embed.search.service import Service, create_app
from apparel_embed.search.source import (
    SAME_COSINE,
    content_of,
    dataset_images,
    gallery_records,
)
from apparel_embed.serving.client import Client, ClientConfig
from apparel_embed.serving.exported import read_absent_thresholds, read_routing_confidence
from apparel_embed.serving.local import LocalModel

_BACKLOG = 256


def open_searcher(
    index: VectorIndex, sources: SearchSources, max_pixels: int
) -> tuple[Searcher, PreparedDataset | None]:
    """Opens a searcher, and the dataset that the index was filled from, if any.

    Raises:
      UserError: if model, index and dataset do not belong together.
    """
    version = answering_version(index, sources.saved_model)
    dataset = dataset_of(version, sources.prepared)
    address = sources.serving_address
    model = _client(address, sources.saved_model) if address else LocalModel(sources.saved_model)
    routing_confidence = read_routing_confidence(sources.saved_model)
    thresholds = None
    # Thresholds were fitted to distances between the model's own embeddings.
    if fits(sources.saved_model, version, exactly=True) and version.settings.index_by != ITEM:
        thresholds = read_absent_thresholds(sources.saved_model, sources.false_accepts)
        _warn_of_missing(thresholds, version.verticals, sources.false_accepts)
    searcher = Searcher(index, version, model, max_pixels, routing_confidence, thresholds)
    if searcher.dim != version.dim:
        raise UserError(
            f"the model's embeddings have length {searcher.dim}; the index has {version.dim}"
        )
    if address and dataset and fits(sources.saved_model, version, exactly=True):
        _check_server(model, address, index, version, dataset)
    return searcher, dataset


def _client(address: str, saved_model: Path) -> Client:
    """Returns a client of the same version of the model, if its directory is named by number."""
    name = saved_model.resolve().name
    return Client(address, ClientConfig(version=int(name) if name.isdecimal() else None))


def _check_server(
    model: Client | LocalModel,
    address: str,
    index: VectorIndex,
    version: Version,
    dataset: PreparedDataset,
) -> None:
    """Raises a UserError if a server's embedding of an indexed image is not the stored one."""
    records = gallery_records(dataset)[:1]
    (image,) = dataset_images(dataset, records)
    (jpeg,) = dataset.read_images(records)
    for found, stored in index.find(version, [image.key]):
        if found.content != content_of(jpeg):
            continue
        embeddings, valid, _ = model.embed([jpeg])
        cosine = float(embeddings[0] @ stored) if valid[0] else 0.0
        if cosine < SAME_COSINE:
            raise UserError(
                f"--serving_address={address}: its model is not that of the index: the cosine "
                f"similarity of their embeddings of {image.image} is {cosine:.3f}, expected at "
                f"least {SAME_COSINE}"
            )


def make_service(index: VectorIndex, sources: SearchSources, limits: Limits) -> FastAPI:
    """Returns the search service."""
    searcher, dataset = open_searcher(index, sources, limits.max_pixels)
    root = sources.images.resolve() if sources.images else None
    settings = ImageSettings(max_pixels=limits.max_pixels)
    read = functools.partial(_read_image, dataset, root, settings)
    examples = []
    if dataset:
        records = _example_records(dataset)
        examples = [functools.partial(_read_record, dataset, record) for record in records]
    return create_app(Service(searcher, read, limits, examples))


def _warn_of_missing(
    thresholds: dict[str, float] | None, verticals: Sequence[str], level: str
) -> None:
    """Logs which searches get no verdict, and why."""
    if thresholds is None:
        logging.warning(
            "no verdicts: the SavedModel was exported before its run was evaluated; evaluate the "
            "run, then export it again"
        )
        return
    lacking = [name for name in (*verticals, ALL) if name not in thresholds]
    if lacking:
        logging.warning(
            "no verdicts for %s: --false_accepts=%s needs %d items of split val in each",
            ", ".join(lacking),
            level,
            round(1 / float(level)) - 1,
        )


def _read_image(
    dataset: PreparedDataset | None,
    root: Path | None,
    settings: ImageSettings,
    image: IndexedImage,
) -> bytes | None:
    """Returns an image of the index as JPEG; None if it is missing.

    Images of the dataset are read by their record; others from files below `root`.
    """
    if image.record >= 0:
        # The index may have been filled from another dataset since.
        is_same = dataset and image.image in dataset.column("image")[image.record :][:1]
        return _read_record(dataset, image.record) if dataset and is_same else None
    try:
        path = (root / image.image).resolve() if root else None
        # Never open a file outside `root`.
        return prepare_image(path, settings).jpeg if path and root in path.parents else None
    except (RejectedImage, OSError, ValueError):
        return None


def _read_record(dataset: PreparedDataset, record: int) -> bytes:
    return dataset.read_images([record])[0]


def _example_records(dataset: PreparedDataset) -> list[int]:
    """Returns a query of each vertical to try the search with, held out if possible."""
    items = dataset.column("item_id")
    examples = []
    for vertical in dataset.verticals:
        for split in ("test", "val", "train"):
            records = dataset.select(split=split, verticals=[vertical], roles=["query", "both"])
            if len(records):
                examples.append(int(min(records, key=lambda record: str(items[record]))))
                break
    return examples


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 picks a free port.

    Raises:
      UserError: if the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    # Connections inherit it. Without it the second part of an answer waits until the first one is
    # acknowledged, which clients delay by 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(make_app: Callable[[], FastAPI], host: str, port: int) -> None:
    """Serves until interrupted, with a line of JSON per request on stderr.

    Args:
      make_app: returns the service; called after the port is bound, since it takes a while.
      host: address to listen on.
      port: port to listen on; 0 for any free port.

    Raises:
      UserError: if the address cannot be listened on.
    """
    with listen(host, port) as listener:
        app = make_app()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        for name, level in ((LOGGER.name, logging.INFO), ("uvicorn.error", logging.WARNING)):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(level)
        shown = f"[{host}]" if ":" in host else host
        print(f"Search page: http://{shown}:{listener.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            # The client is the peer of the connection: proxy headers can be forged.
            proxy_headers=False,
            timeout_graceful_shutdown=10,
        )
        # An interrupt ends the service, and is not an error.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
