"""The interface of a served model, whether it runs in this process or on a server."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import (
    LARGEST_MAX_PIXELS,
    ImageSettings,
    RejectedImage,
    is_plain_image,
    prepare_image,
)
from apparel_embed.serving.errors import ImageError, ImageTooLarge, NotAnImage
from apparel_embed.serving.exported import DETECT, EMBED


@dataclasses.dataclass(frozen=True)
class ImageLimits:
    """Which images are accepted, and how large they are sent; all values are at least 1.

    Attributes:
      max_bytes: larger files are refused.
      max_pixels: images with more pixels are refused before decoding; at most LARGEST_MAX_PIXELS.
      sent_bytes: larger files are converted, so that they are sent faster.
      sent_side: longest side of a converted image in pixels.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    sent_bytes: int = 2**20
    sent_side: int = 1024

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            most = LARGEST_MAX_PIXELS if name == "max_pixels" else 2**31 - 1
            if not 1 <= value <= most:
                raise UserError(f"{name} is {value}; expected 1 to {most}")


class Embeddings(NamedTuple):
    """The embeddings of a list of images, in their order.

    Attributes:
      embeddings: float32 [n, dim], of unit length; zeros for invalid images.
      valid: bool [n], whether the image could be embedded.
      vertical_scores: float32 [n, verticals], the probability of every vertical, zeros for invalid
        images; None if the model was exported without `--vertical_head`.
    """

    embeddings: np.ndarray
    valid: np.ndarray
    vertical_scores: np.ndarray | None


class Garments(NamedTuple):
    """The garments found in one image, most likely first.

    Attributes:
      boxes: float32 [n, 4], x_min, y_min, x_max, y_max as fractions of width and height of the
        upright image.
      scores: float32 [n], in 0 to 1, descending.
      verticals: names of the garments' verticals.
      embeddings: float32 [n, dim], of unit length.
      valid: whether the image could be decoded.
    """

    boxes: np.ndarray
    scores: np.ndarray
    verticals: tuple[str, ...]
    embeddings: np.ndarray
    valid: bool


class ServedModel(abc.ABC):
    """An exported model, in this process or on a server.

    Args:
      limits: which images are accepted.
      batch_size: images per batch, at least 1.
      batch_bytes: bytes per batch, unless a single image has more.
    """

    def __init__(self, limits: ImageLimits, batch_size: int, batch_bytes: int) -> None:
        self._limits, self._batch_size, self._batch_bytes = limits, batch_size, batch_bytes

    @property
    @abc.abstractmethod
    def verticals(self) -> tuple[str, ...]:
        """Names of the verticals, in the order of `vertical_scores`; () if unknown."""

    @property
    @abc.abstractmethod
    def detects(self) -> bool:
        """Whether the model detects garments, i.e. it was exported with `--detector`."""

    @abc.abstractmethod
    def _predict(self, images: list[bytes], signature: str) -> Mapping[str, np.ndarray]:
        """Returns the outputs of a signature, `EMBED` or `DETECT`, each with a row per image."""

    def embed(self, images: Sequence[bytes]) -> Embeddings:
        """Embeds any number of encoded images.

        Args:
          images: the bytes of files in any format that Pillow reads. Bytes that are not an image,
            and images that are too large, are not valid and do not affect the others.

        Raises:
          ServingError: if a server fails, as one of the subclasses ServerUnavailable,
            DeadlineExceeded, ModelNotFound, RequestRefused, WrongAnswer.
        """
        # For an empty list the model gets one invalid image, to find the length of the outputs.
        sent = [self._sent(image) for image in images] or [b""]
        found = [self._predict(batch, EMBED) for batch in self._batches(sent)]
        joined = {
            name: np.concatenate([one[name] for one in found])[: len(images)]
            for name in ("embedding", "valid", "vertical")
            if name in found[0]
        }
        return Embeddings(joined["embedding"], joined["valid"], joined.get("vertical"))

    def detect(self, images: Sequence[bytes]) -> list[Garments]:
        """Finds the garments in any number of encoded images, and embeds each.

        Args:
          images: see `embed`; bytes that are not an image have no garments.

        Returns:
          The garments of each image, in the order of the images.

        Raises:
          UserError: if the model has no detector.
          ServingError: see `embed`.
        """
        if not self.detects:
            raise UserError(
                "the model has no detector: export it with one (--detector of "
                "tools/export_saved_model.py)"
            )
        sent = [self._sent(image) for image in images]
        return [
            _garments({name: values[place] for name, values in found.items()})
            for batch in (self._batches(sent) if sent else ())
            for found in [self._predict(batch, DETECT)]
            for place in range(len(batch))
        ]

    def _sent(self, image: bytes) -> bytes:
        """Returns the bytes to send for an image; b"", which is not valid, if it is refused."""
        try:
            return to_servable(image, self._limits)
        except ImageError:
            return b""

    def _batches(self, images: Sequence[bytes]) -> Iterator[list[bytes]]:
        batch: list[bytes] = []
        for image in images:
            size = sum(map(len, batch)) + len(image)
            if batch and (len(batch) == self._batch_size or size > self._batch_bytes):
                yield batch
                batch = []
            batch.append(image)
        yield batch


def _garments(row: Mapping[str, np.ndarray]) -> Garments:
    """Returns the garments of an image from its row in each output."""
    found = row["found"]
    names = (
        name.decode() if isinstance(name, bytes) else str(name)
        for name in row["vertical_name"][found]
    )
    return Garments(
        row["boxes"][found],
        row["scores"][found],
        tuple(names),
        row["embedding"][found],
        bool(row["valid"]),
    )


def to_servable(image: bytes, limits: ImageLimits = ImageLimits()) -> bytes:
    """Returns an image as a JPEG or PNG that the model decodes correctly.

    An image that already is one stays unchanged. Others are converted as in `prepare`: upright, on
    white, in sRGB. These are other formats (WebP, AVIF, HEIC, TIFF, GIF, BMP ...), CMYK images,
    images with a rotation or a colour profile, and large files.

    Args:
      image: the bytes of a file.
      limits: which images are accepted.

    Raises:
      ImageTooLarge: if the image exceeds the limits.
      NotAnImage: if it is not an image, or cannot be converted.
    """
    if len(image) > limits.max_bytes:
        raise ImageTooLarge(f"image of {len(image):,} bytes: expected at most {limits.max_bytes:,}")
    settings = ImageSettings(max_side=limits.sent_side, max_pixels=limits.max_pixels)
    try:
        if len(image) <= limits.sent_bytes and is_plain_image(image, limits.max_pixels):
            return image
        return prepare_image(image, settings).jpeg
    except RejectedImage as error:
        kind = ImageTooLarge if "pixels" in str(error) else NotAnImage
        raise kind(f"image: {error}") from error
