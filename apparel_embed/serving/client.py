"""A client of TensorFlow Serving, by gRPC or REST."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apparel_embed.common.settings import check_settings, setting
from apparel_embed.serving.embeddings import Embeddings, embed_in_batches
from apparel_embed.serving.errors import WrongAnswer
from apparel_embed.serving.pictures import PictureLimits

MODEL_NAME = "apparel_embed"
"""By which the model is known to a server."""


@dataclasses.dataclass(frozen=True)
class ClientConfig:
    """How a server is asked.

    Attributes:
      deadline: seconds to wait for a batch, above 0; by REST, for each attempt.
      secure: whether gRPC is encrypted; REST is by an address of https://.
      limits: what pictures are taken.

    Example:
      >>> ClientConfig(deadline=2.0, attempts=1).batch_size
      32
    """

    model_name: str = setting(MODEL_NAME, "by which the server knows the model")
    version: int | None = setting(None, "version of the model; by default the newest", 1)
    deadline: float = setting(10.0, "seconds to wait for an answer", 0.001)
    attempts: int = setting(4, "how often a server that is unavailable is asked", 1, 5)
    batch_size: int = setting(32, "pictures in a request", 1)
    batch_bytes: int = setting(
        16 * 2**20, "bytes in a request, unless a single picture has more", 1
    )
    secure: bool = setting(False, "encrypt gRPC; for REST give an https:// address")
    limits: PictureLimits = PictureLimits()

    def __post_init__(self) -> None:
        check_settings(self)


class Client:
    """Embeds encoded pictures by a server; may be used by several threads.

    Args:
      address: `host:port` for gRPC, `http://host:port` or `https://...` for REST.
      config: how to ask.

    Raises:
      UserError: if the address is none, or the package for it is not installed.

    Example:
      >>> from pathlib import Path
      >>> with Client("localhost:8500") as client:
      ...     found = client.embed([Path("dress.webp").read_bytes(), b"no picture"])
      >>> found.valid
      array([ True, False])
    """

    def __init__(self, address: str, config: ClientConfig = ClientConfig()) -> None:
        self._address, self._config = address, config
        self._transport: RestTransport | GrpcTransport
        # gRPC needs a package that REST does not.
        if address.startswith(("http://", "https://")):
            from apparel_embed.serving.rest_transport import RestTransport

            self._transport = RestTransport(address, config)
        else:
            from apparel_embed.serving.grpc_transport import GrpcTransport

            self._transport = GrpcTransport(address, config)
        self._verticals: tuple[str, ...] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    @property
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals, in the order of `vertical_scores`; () for a model without head.

        Those of the latest answer; before the first the server is asked.
        """
        if self._verticals is None:
            self.embed([])
        return self._verticals or ()

    def embed(self, pictures: Sequence[bytes]) -> Embeddings:
        """Embeds encoded pictures, any number.

        Args:
          pictures: files' bytes, of any format that Pillow reads; what is no picture, or too large
            a one, is answered as not valid and harms no other.

        Returns:
          Embeddings float32 [n, dim] of unit length, whether there was a picture bool [n], and the
          probabilities of verticals float32 [n, verticals], or None without a vertical head.

        Raises:
          ServingError: if the server cannot be asked, as one of its kinds: ServerUnavailable,
            DeadlineExceeded, ModelNotFound, RequestRefused, WrongAnswer.
        """
        return embed_in_batches(
            pictures,
            self._predict,
            limits=self._config.limits,
            batch_size=self._config.batch_size,
            batch_bytes=self._config.batch_bytes,
        )

    def _predict(self, pictures: list[bytes]) -> dict[str, np.ndarray]:
        answer = self._transport.predict(pictures)
        found = {}
        for name, kind, rank in (("embedding", np.float32, 2), ("valid", bool, 1)):
            if name not in answer:
                raise WrongAnswer(f"{self._address}: the answer has no {name!r}")
            found[name] = np.asarray(answer[name], kind)
            if found[name].ndim != rank or len(found[name]) != len(pictures):
                raise WrongAnswer(
                    f"{self._address}: {name!r} of shape {found[name].shape} for "
                    f"{len(pictures)} pictures"
                )
        if "vertical" in answer and "vertical_name" in answer:
            found["vertical"] = np.asarray(answer["vertical"], np.float32)
            names = [
                name.decode() if isinstance(name, bytes) else name
                for name in answer["vertical_name"][0]
            ]
            if found["vertical"].shape != (len(pictures), len(names)):
                raise WrongAnswer(
                    f"{self._address}: 'vertical' of shape {found['vertical'].shape} for "
                    f"{len(pictures)} pictures and {len(names)} verticals"
                )
            self._verticals = tuple(names)
        else:
            self._verticals = ()
        return found
