"""SavedModel export, and what asks it for embeddings: in this process or a server."""

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
from apparel_embed.serving.local import LocalModel
from apparel_embed.serving.pictures import PictureLimits, to_servable

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
