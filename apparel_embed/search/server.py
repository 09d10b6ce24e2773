"""Puts the service together from a run, and lets uvicorn serve it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.pictures import PictureSettings
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.search.index import VectorIndex
from apparel_embed.search.limits import Limits
from apparel_embed.search.observe import LOGGER, JsonFormatter
from apparel_embed.search.pictures import (
    FilePictures,
    NoPictures,
    PictureSource,
    PreparedPictures,
    example_records,
)
from apparel_embed.search.searcher import Embedder, Searcher, answering_version
from apparel_embed.search.service import create_app
from apparel_embed.search.version import IndexedPicture, Version
from apparel_embed.serving.local import LocalModel
from apparel_embed.serving.saved_model import read_routing_confidence

_EXAMPLES_PER_VERTICAL = 1
_BACKLOG = 256


@dataclasses.dataclass(frozen=True)
class SearchSources:
    """What is searched with and in.

    Attributes:
      saved_model: directory of one version of the model.
      prepared: directory of the prepared dataset whose pictures are indexed, or None.
    """

    saved_model: Path
    prepared: Path | None
    pictures: Path | None = setting(
        None,
        "directory that the pictures of an index made with --bulk are in; without, hits have no "
        "pictures",
    )
    serving_address: str = setting(
        "",
        "TensorFlow Serving that embeds instead of this process: host:port for gRPC, "
        "http://host:port for REST",
    )


@dataclasses.dataclass(frozen=True)
class _PreparedOrFiles:
    """Pictures of an index that was filled from a dataset and then added to.

    Attributes:
      prepared: those of the dataset.
      files: those that were added.
    """

    prepared: PictureSource
    files: PictureSource

    def jpeg(self, picture: IndexedPicture) -> bytes | None:
        """Returns a picture as JPEG; None if it is not there."""
        return (self.prepared if picture.record >= 0 else self.files).jpeg(picture)


def open_embedder(sources: SearchSources) -> Embedder:
    """Opens the model in this process, or a client of a server."""
    if not sources.serving_address:
        return LocalModel(sources.saved_model)
    # Needs a package of its own.
    from apparel_embed.serving import Client

    return Client(sources.serving_address)


def open_searcher(
    index: VectorIndex, sources: SearchSources, max_pixels: int
) -> tuple[Searcher, PreparedDataset | None]:
    """Opens what a search needs.

    Raises:
      UserError: if model, index and dataset do not belong together.
    """
    version = answering_version(index, sources.saved_model)
    dataset = _dataset(version, sources)
    embedder = open_embedder(sources)
    dim = embedder.embed([]).embeddings.shape[1]
    if dim != version.dim:
        raise UserError(f"the model gives {dim} numbers for a picture, the index has {version.dim}")
    settings = PictureSettings(max_pixels=max_pixels)
    if dataset:
        made = dataset.info["settings"]
        settings = PictureSettings(
            made["max_side"], made["crop_margin"], made["jpeg_quality"], max_pixels
        )
    routing_confidence = read_routing_confidence(sources.saved_model)
    return Searcher(index, version, embedder, settings, routing_confidence), dataset


def make_service(index: VectorIndex, sources: SearchSources, limits: Limits) -> FastAPI:
    """Makes the service of a run."""
    searcher, dataset = open_searcher(index, sources, limits.max_pixels)
    files: PictureSource = NoPictures()
    if sources.pictures:
        files = FilePictures(sources.pictures, PictureSettings(max_pixels=limits.max_pixels))
    pictures, examples = files, list[Callable[[], bytes]]()
    if dataset:
        pictures = _PreparedOrFiles(PreparedPictures(dataset), files)
        examples = [
            functools.partial(_picture, dataset, record)
            for record in example_records(dataset, _EXAMPLES_PER_VERTICAL)
        ]
    return create_app(searcher, pictures, limits=limits, examples=examples)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that waits for connections.

    Args:
      host: address to listen on.
      port: 1 to 65535; 0 for any that is free.

    Raises:
      UserError: if nothing can be listened to there.
    """
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=_BACKLOG,
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    # Connections inherit it. Without it an answer's second part waits until the first one is
    # acknowledged, which clients put off for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(make_app: Callable[[], FastAPI], host: str, port: int) -> None:
    """Serves until it is interrupted, with a line of JSON per request on stderr.

    Args:
      make_app: makes the service; called once the port is ours, as it takes a while.
      host: address to listen on.
      port: 1 to 65535; 0 for any that is free.

    Raises:
      UserError: if nothing can be listened to there.
    """
    with listen(host, port) as listener:
        _serve(make_app(), listener, host)


def _serve(app: FastAPI, listener: socket.socket, host: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    shown = f"[{host}]" if ":" in host else host
    print(f"Search page: http://{shown}:{listener.getsockname()[1]}/", flush=True)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        # Whoever asks is who is connected: headers that say otherwise can be forged.
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    # An interrupt ends it, and is no error.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _dataset(version: Version, sources: SearchSources) -> PreparedDataset | None:
    if not version.pictures_of:
        return None
    if sources.prepared is None:
        raise UserError("the index was filled from a prepared dataset; name it with --prepared")
    dataset = PreparedDataset.open(sources.prepared)
    if dataset.fingerprint != version.pictures_of:
        raise UserError(
            f"{sources.prepared}: is not the dataset that the index was filled from; fill it anew "
            "with tools/build_index.py"
        )
    return dataset


def _picture(dataset: PreparedDataset, record: int) -> bytes:
    return dataset.read_images([record])[0]
