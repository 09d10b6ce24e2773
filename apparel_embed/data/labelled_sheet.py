"""Contact sheets of images with captions or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 96
BOXED_SIDE = 240
_GAP = 6
_COLUMNS = 4
_FRAME = 3
_FONT_SIZE = 11
_LINE = 14
# More letters than fit below an image.
_LONGEST = 60
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def draw_labelled_sheet(
    images: np.ndarray | Sequence[np.ndarray],
    captions: Sequence[Sequence[str]],
    columns: int,
    frames: Sequence[str] | None = None,
) -> np.ndarray:
    """Draws a sheet of images with their captions.

    Args:
      images: uint8 or float [height, width, 3] each, values 0..255; at least one.
      captions: lines of text of each image, the same number for all; lines wider than an image are
        cut.
      columns: images per row, 1 or more.
      frames: colour of each image's frame, by any name that Pillow accepts.

    Returns:
      uint8 [height, width, 3]; each image is `SIDE` pixels wide and high.
    """
    font = ImageFont.load_default(size=_FONT_SIZE)
    lines = max(len(caption) for caption in captions)
    width, height = SIDE + _GAP, SIDE + lines * _LINE + _GAP
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (pixels, caption) in enumerate(zip(images, captions)):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
        if frames:
            ends = (left, top, left + SIDE - 1, top + SIDE - 1)
            pen.rectangle(ends, outline=frames[number], width=_FRAME)
        for line, text in enumerate(caption):
            below = top + SIDE + line * _LINE
            pen.text((left, below), _cut(text, font), fill=_INK, font=font)
    return np.asarray(sheet)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Returns a text on one line, cut to the width of an image."""
    text = " ".join(text.split())[:_LONGEST]
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(f"{text}…") > SIDE:
        text = text[:-1]
    return f"{text}…"


class Box(NamedTuple):
    """A box to draw.

    Attributes:
      corners: x_min, y_min, x_max, y_max as fractions of the image's width and height.
      label: text at its upper left corner; "" for none.
      colour: any colour name that Pillow accepts.
    """

    corners: Sequence[float] | np.ndarray
    label: str = ""
    colour: str = "lime"


def draw_boxes(
    images: np.ndarray | Sequence[np.ndarray], boxes: Sequence[Sequence[Box]]
) -> np.ndarray:
    """Draws a sheet of images with boxes.

    Args:
      images: uint8 or float [height, width, 3] each, values 0..255; at least one.
      boxes: boxes of each image.

    Returns:
      uint8 [height, width, 3].
    """
    font = ImageFont.load_default(size=_FONT_SIZE)
    step = BOXED_SIDE + _GAP
    rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * step + _GAP, rows * step + _GAP), _PAPER)
    for number, (pixels, own) in enumerate(zip(images, boxes)):
        image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        image = image.resize((BOXED_SIDE, BOXED_SIDE), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for box in own:
            left, top, right, bottom = (float(side) * (BOXED_SIDE - 1) for side in box.corners)
            pen.rectangle((left, top, right, bottom), outline=box.colour, width=2)
            if box.label:
                place = (left + 3, top + 2)
                pen.rectangle(pen.textbbox(place, box.label, font), fill="black")
                pen.text(place, box.label, fill=box.colour, font=font)
        sheet.paste(image, (_GAP + number % _COLUMNS * step, _GAP + number // _COLUMNS * step))
    return np.asarray(sheet)
