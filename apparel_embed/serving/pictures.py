"""From any picture file to one that a served model takes, on the side that sends it."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import (
    LARGEST_MAX_PIXELS,
    PictureSettings,
    RejectedPicture,
    is_plain_picture,
    prepare_picture,
)
from apparel_embed.serving.errors import NotAPicture, PictureTooLarge


@dataclasses.dataclass(frozen=True)
class PictureLimits:
    """What pictures are taken, and how large they are sent.

    Attributes:
      max_bytes: larger files are refused, 1 or more.
      max_pixels: pictures of more are refused before they are decoded here, 1 to
        LARGEST_MAX_PIXELS.
      sent_bytes: larger files are converted, to be sent faster, 1 or more.
      sent_side: longest side of a converted picture in pixels, 1 or more.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    sent_bytes: int = 2**20
    sent_side: int = 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            most = LARGEST_MAX_PIXELS if field.name == "max_pixels" else 2**31 - 1
            if not 1 <= value <= most:
                raise UserError(f"{field.name} is {value}; allowed is 1 to {most}")


def to_servable(picture: bytes, limits: PictureLimits = PictureLimits()) -> bytes:
    """Returns a picture as a JPEG or PNG that the model decodes right, unchanged where it is one.

    All others are converted as `prepare` does it: upright, on white, in sRGB. These are other
    formats (WebP, AVIF, HEIC, TIFF, GIF, BMP ...), CMYK, pictures to be turned or with a colour
    profile, and large files.

    Args:
      picture: a file's bytes.
      limits: what is taken.

    Raises:
      PictureTooLarge: if it is beyond the limits.
      NotAPicture: if it is none, or has to be converted and cannot be.
    """
    if len(picture) > limits.max_bytes:
        raise PictureTooLarge(
            f"picture of {len(picture):,} bytes: allowed are {limits.max_bytes:,}"
        )
    settings = PictureSettings(max_side=limits.sent_side, max_pixels=limits.max_pixels)
    try:
        if len(picture) <= limits.sent_bytes and is_plain_picture(picture, limits.max_pixels):
            return picture
        return prepare_picture(picture, settings).jpeg
    except RejectedPicture as error:
        kind = PictureTooLarge if "pixels" in str(error) else NotAPicture
        raise kind(f"picture: {error}") from error
