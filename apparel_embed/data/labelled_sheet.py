"""Pictures side by side, each with words below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 96
_GAP = 6
_FONT_SIZE = 11
_LINE = 14
# Letters that are surely wider than a picture together.
_LONGEST = 60
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def draw_labelled_sheet(
    images: np.ndarray, captions: Sequence[Sequence[str]], columns: int
) -> np.ndarray:
    """Draws a sheet of pictures with their captions.

    Args:
      images: uint8 or float [n, height, width, 3], values 0..255, n at least 1.
      captions: for each picture its lines of text, all as many; what is longer than a picture is
        wide is cut.
      columns: pictures side by side, 1 or more.

    Returns:
      uint8 [height, width, 3], of pictures with sides of `SIDE` pixels.
    """
    font = ImageFont.load_default(size=_FONT_SIZE)
    lines = max(len(caption) for caption in captions)
    width, height = SIDE + _GAP, SIDE + lines * _LINE + _GAP
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (pixels, caption) in enumerate(zip(images, captions)):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
        for line, text in enumerate(caption):
            below = top + SIDE + line * _LINE
            pen.text((left, below), _cut(text, font), fill=_INK, font=font)
    return np.asarray(sheet)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Returns as much of a text, in one line, as is no wider than a picture."""
    text = " ".join(text.split())[:_LONGEST]
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(f"{text}…") > SIDE:
        text = text[:-1]
    return f"{text}…"
