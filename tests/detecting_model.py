"""A model that detects garments without a detector, in the quarters of an image."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from apparel_embed.data.images import ImageSettings, prepare_image
from apparel_embed.serving.embeddings import Garments
from apparel_embed.serving.local import LocalModel

SIDE = 384
# Boxes of a garment in its quarter, and of its pasted image: crops have a margin of 0.1.
BOX, SHOWN = (36, 36, 156, 156), (24, 24, 168, 168)
VERTICALS = ("bag", "bag", "dress", "dress")
SCORES = (0.93, 0.9, 0.8, 0.7)


def quarter(number: int, box: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a box in a quarter as a box in the image."""
    left, top = (number % 2) * SIDE // 2, (number // 2) * SIDE // 2
    return box[0] + left, box[1] + top, box[2] + left, box[3] + top


def scene_of(images: list[str]) -> bytes:
    """Returns a PNG with one garment in each of its first quarters."""
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    for number, image in enumerate(images):
        left, top, right, bottom = quarter(number, SHOWN)
        garment = Image.open(image).convert("RGB").resize((right - left, bottom - top))
        canvas.paste(garment, (left, top))
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


class QuarterModel(LocalModel):
    """Detects a bag in each upper quarter that is not uniform, and a dress in each lower one."""

    @property
    def detects(self) -> bool:
        return True

    def detect(self, images):
        return [self._garments(image) for image in images]

    def _garments(self, image: bytes) -> Garments:
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L").resize((SIDE, SIDE)))
        half = SIDE // 2
        quarters = pixels.reshape(2, half, 2, half).swapaxes(1, 2).reshape(4, -1)
        seen = [number for number, one in enumerate(quarters) if np.ptp(one) > 40]
        boxes = np.array([quarter(number, BOX) for number in seen], np.float32).reshape(-1, 4)
        sides = np.array(Image.open(io.BytesIO(image)).size * 2)
        crops = [
            prepare_image(image, ImageSettings(), tuple(box * sides / SIDE)).jpeg for box in boxes
        ]
        return Garments(
            boxes / SIDE,
            np.array([SCORES[number] for number in seen], np.float32),
            tuple(VERTICALS[number] for number in seen),
            self.embed(crops).embeddings,
            True,
        )
