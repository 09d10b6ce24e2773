"""SavedModel export, and embedding with a SavedModel in this process or on a server.

Importing the client does not import TensorFlow; a gRPC client imports it on the first request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from apparel_embed.serving.client import Client as Client
from apparel_embed.serving.client import ClientConfig as ClientConfig
from apparel_embed.serving.embeddings import Embeddings as Embeddings
from apparel_embed.serving.embeddings import Garments as Garments
from apparel_embed.serving.embeddings import ImageLimits as ImageLimits
from apparel_embed.serving.embeddings import to_servable as to_servable
from apparel_embed.serving.errors import DeadlineExceeded as DeadlineExceeded
from apparel_embed.serving.errors import ImageError as ImageError
from apparel_embed.serving.errors import ImageTooLarge as ImageTooLarge
from apparel_embed.serving.errors import ModelNotFound as ModelNotFound
from apparel_embed.serving.errors import NotAnImage as NotAnImage
from apparel_embed.serving.errors import RequestRefused as RequestRefused
from apparel_embed.serving.errors import ServerUnavailable as ServerUnavailable
from apparel_embed.serving.errors import ServingError as ServingError
from apparel_embed.serving.errors import WrongAnswer as WrongAnswer

if TYPE_CHECKING:
    from apparel_embed.serving.local import LocalModel as LocalModel


def __getattr__(name: str) -> Any:
    if name != "LocalModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("apparel_embed.serving.local").LocalModel
