"""What can go wrong between an image and its embedding, each kind with its own name."""

from __future__ import annotations

from apparel_embed.common.errors import UserError


class ImageError(UserError):
    """An image cannot be sent; the message is the reason, in one line."""


class ImageTooLarge(ImageError):
    """An image has too many bytes or pixels."""


class NotAImage(ImageError):
    """Bytes are no image, a broken one, or one of an unknown format."""


class ServingError(UserError):
    """A model could not be asked; the message names the server and the reason, in one line.

    Examples:
      >>> from apparel_embed import Client, ClientConfig
      >>> try:
      ...     Client("http://localhost:1", ClientConfig(attempts=1, deadline=1)).embed([])
      ... except ServingError as error:
      ...     print(type(error).__name__)
      ServerUnavailable
    """


class ServerUnavailable(ServingError):
    """Nothing answers, or the server has too much to do; also after all attempts."""


class DeadlineExceeded(ServingError):
    """No answer came in time."""


class ModelNotFound(ServingError):
    """The server does not know the model or the version."""


class RequestRefused(ServingError):
    """The server does not take the request: it is too large, or the model is another one."""


class WrongAnswer(ServingError):
    """The server's answer is not that of a model of this package."""
