"""From any picture file to one that a served model takes, on the side that sends it."""

from __future__ import annotations

import dataclasses

from apparel_embed.data.pictures import (
    LARGEST_MAX_PIXELS,
    PictureSettings,
    RejectedPicture,
    prepare_picture,
)
from apparel_embed.errors import UserError
from apparel_embed.serving.errors import NotAPicture, PictureTooLarge

# What the graph decodes right. Of BMP it does not know every kind: better converted.
_SERVABLE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
# A colour profile stands at the start of a file.
_PROFILES, _START = (b"ICC_PROFILE\0", b"iCCP"), 1 << 16


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
    """Returns a picture as JPEG, PNG or GIF, the bytes themselves wherever they will do.

    Other formats that `prepare` reads (WebP, AVIF, HEIC, TIFF, BMP ...), large files and pictures
    with a colour profile are converted as `prepare` does it: upright, on white, in sRGB.

    Args:
      picture: a file's bytes.
      limits: what is taken.

    Raises:
      PictureTooLarge: if it is beyond the limits.
      NotAPicture: if it has to be converted and cannot be.
    """
    if len(picture) > limits.max_bytes:
        raise PictureTooLarge(
            f"picture of {len(picture):,} bytes: allowed are {limits.max_bytes:,}"
        )
    start = picture[:_START]
    if (
        start.startswith(_SERVABLE)
        and len(picture) <= limits.sent_bytes
        and not any(profile in start for profile in _PROFILES)
    ):
        return picture
    settings = PictureSettings(max_side=limits.sent_side, max_pixels=limits.max_pixels)
    try:
        return prepare_picture(picture, settings).jpeg
    except RejectedPicture as error:
        kind = PictureTooLarge if "pixels" in str(error) else NotAPicture
        raise kind(f"picture: {error}") from error
