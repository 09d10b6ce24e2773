"""Errors between an image and its embedding."""

from __future__ import annotations

from apparel_embed.common.errors import UserError


class ImageError(UserError):
    """An image cannot be sent; the message gives the reason in one line."""


class ImageTooLarge(ImageError):
    """An image has too many bytes or pixels."""


class NotAnImage(ImageError):
    """The bytes are not an image, or one that is broken or has an unknown format."""


class ServingError(UserError):
    """A request to a server failed; the message names the server and the reason in one line.

    Examples:
      >>> from apparel_embed import Client, ClientConfig
      >>> try:
      ...     Client("http://localhost:1", ClientConfig(attempts=1, deadline=1)).embed([])
      ... except ServingError as error:
      ...     print(type(error).__name__)
      ServerUnavailable
    """


class ServerUnavailable(ServingError):
    """The server cannot be reached or is overloaded, even after all attempts."""


class DeadlineExceeded(ServingError):
    """The server did not answer in time."""


class ModelNotFound(ServingError):
    """The server does not have the model or the version."""


class RequestRefused(ServingError):
    """The server refused the request: it is too large, or does not match the model."""


class WrongAnswer(ServingError):
    """The server's answer is not from a model of this package."""
