"""SavedModel export, and what asks it for embeddings: in this process or a server.

A client imports no TensorFlow; one by gRPC does so when it connects.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from apparel_embed.serving.client import Client, ClientConfig
from apparel_embed.serving.embeddings import Embeddings
from apparel_embed.serving.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NotAPicture,
    PictureError,
    PictureTooLarge,
    RequestRefused,
    ServerUnavailable,
    ServingError,
    WrongAnswer,
)
from apparel_embed.serving.pictures import PictureLimits, to_servable

if TYPE_CHECKING:
    from apparel_embed.serving.local import LocalModel

__all__ = [
    "Client",
    "ClientConfig",
    "DeadlineExceeded",
    "Embeddings",
    "LocalModel",
    "ModelNotFound",
    "NotAPicture",
    "PictureError",
    "PictureLimits",
    "PictureTooLarge",
    "RequestRefused",
    "ServerUnavailable",
    "ServingError",
    "WrongAnswer",
    "to_servable",
]


def __getattr__(name: str) -> Any:
    if name != "LocalModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("apparel_embed.serving.local").LocalModel
