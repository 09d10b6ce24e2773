"""From the colours of an image file to sRGB on white."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

_WHITE = (255, 255, 255)


def on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns an image in sRGB on a white ground, without any metadata.

    Args:
      image: L, RGB, RGBA or CMYK.
      profile: ICC profile of its colours; None for sRGB.
    """
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = image if alpha is None else image.convert("RGB")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(_to_srgb(opaque, profile), mask=alpha)
    return canvas


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts by the ICC profile; a profile that is broken or of another kind is ignored."""
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image.convert("RGB")
        # None is what it returns of a picture changed in place.
        return converted or image
    return image.convert("RGB")
