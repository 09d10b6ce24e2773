"""A tiny model to export, and images to embed with it."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from image_kinds import BLUE, GREEN, RED
from PIL import Image

from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import cell_centres, split_cells
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.vertical_head import VerticalHead, feature_model
from apparel_embed.serving.garments import Detector

SIZE, DIM = 32, 8
VERTICALS = ("bag", "dress", "Köpfe, Hüte")


def drawn(width=60, height=40, seed=0, mode="RGB"):
    """Returns a smooth image of a few colours, which depends little on the resizing method."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.BICUBIC).convert(mode)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **{"quality": 95, **options} if kind == "JPEG" else options)
    return file.getvalue()


_JPEG, _PNG = (encoded(drawn(60, 60, seed=7), kind) for kind in ("JPEG", "PNG"))
BROKEN = {
    "truncated JPEG": _JPEG[:-200],
    "truncated PNG": _PNG[:-200],
    "text": b"this is no image",
    "nothing": b"",
    "header only": b"\xff\xd8\xff\xe0",
    "huge PNG": _PNG[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + _PNG[24:],
    "WebP": encoded(drawn(20, 20), "WEBP"),
}


def exif(orientation):
    found = Image.Exif()
    found[0x010F] = "Maker"
    found[0x0112] = orientation
    return found


def tiny_model():
    tf.keras.utils.set_random_seed(1)
    model = build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=DIM, pooling="gem"))
    # Change the moving statistics from their initial values.
    model(tf.random.stateless_uniform([8, SIZE, SIZE, 3], [1, 2], 0, 255), training=True)
    return model


def tiny_head(model):
    features = feature_model(model).output_shape[-1]
    random = np.random.default_rng(3)
    weights = random.normal(0, 1, (features, len(VERTICALS))).astype(np.float32)
    return VerticalHead(VERTICALS, weights, random.normal(0, 1, len(VERTICALS)).astype(np.float32))


COLOURS = (RED, GREEN, BLUE)


class ColourDetector(tf.keras.Model):
    """Detects pixels of the i-th of `COLOURS` as one garment of the i-th vertical.

    Like any detector, it answers at the cell of the garment's centre.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        # Without its variables it detects nothing, so tests notice if they are not exported.
        self.certainty = self.add_weight("certainty", [3], initializer="zeros")
        self.certainty.assign([4.0, 2.0, 3.0])

    def call(self, images, training=False):
        side = self.config.image_size
        is_garment = tf.reduce_all(tf.abs(images[..., tf.newaxis, :] - COLOURS) < 45, axis=-1)
        edges = tf.range(side + 1, dtype=tf.float32)[:, tf.newaxis] / side
        seen = [tf.reduce_any(is_garment, axis) for axis in (1, 2)]
        low = tf.stack([tf.reduce_min(tf.where(one, edges[:-1], 1.0), 1) for one in seen], -1)
        high = tf.stack([tf.reduce_max(tf.where(one, edges[1:], 0.0), 1) for one in seen], -1)

        centres = cell_centres(side)
        usual = centres[0, 0] - split_cells(tf.zeros([4]), centres)[0][0, 0]
        middles = ((low + high) / 2)[:, :, tf.newaxis]
        cells = tf.argmin(tf.reduce_sum((centres - middles) ** 2, -1), -1)
        is_present = tf.one_hot(cells, len(centres)) * tf.cast(
            tf.reduce_any(is_garment, [1, 2])[..., tf.newaxis], tf.float32
        )
        reach = tf.concat([centres - low[:, :, tf.newaxis], high[:, :, tf.newaxis] - centres], -1)
        logs = tf.math.log(tf.maximum(reach, 1e-3) / usual)
        boxes = tf.reduce_sum(is_present[..., tf.newaxis] * logs, 1)
        logits = is_present * (self.certainty[:, tf.newaxis] + 9.0) - 9.0
        return tf.concat([boxes, tf.transpose(logits, [0, 2, 1])], -1)


def colour_detector(most=10, image_size=128):
    config = DetectorConfig(VERTICALS, image_size=image_size, most_garments=most)
    return Detector(ColourDetector(config), config)


def photograph(boxes, width=200, height=150, seed=0):
    """Returns a grey photograph with a garment in each box; boxes are in pixels, by vertical."""
    noise = np.random.default_rng(seed).integers(100, 140, (height, width, 1), np.uint8)
    pixels = np.repeat(noise, 3, axis=2)
    for vertical, (left, top, right, bottom) in boxes.items():
        garment = drawn(right - left, bottom - top, seed=vertical)
        # Nearly one colour, but each garment is different.
        pixels[top:bottom, left:right] = (
            np.array(COLOURS[vertical]) + (np.asarray(garment, int) - 128) // 8
        )
    return Image.fromarray(pixels)
