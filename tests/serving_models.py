"""A tiny exported model, and pictures to ask it for."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.vertical_head import VerticalHead, feature_model

SIZE, DIM = 32, 8
VERTICALS = ("bag", "dress", "Köpfe, Hüte")


def picture(width=60, height=40, seed=0, mode="RGB"):
    """A smooth picture of a few colours, so that two ways to shrink it give nearly the same."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.BICUBIC).convert(mode)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **{"quality": 95, **options} if kind == "JPEG" else options)
    return file.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[0x010F] = "Maker"
    found[0x0112] = orientation
    return found


def tiny_model():
    tf.keras.utils.set_random_seed(1)
    model = build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=DIM, pooling="gem"))
    # Moving statistics that are not the initial ones.
    model(tf.random.stateless_uniform([8, SIZE, SIZE, 3], [1, 2], 0, 255), training=True)
    return model


def tiny_head(model):
    features = feature_model(model).output_shape[-1]
    random = np.random.default_rng(3)
    weights = random.normal(0, 1, (features, len(VERTICALS))).astype(np.float32)
    return VerticalHead(VERTICALS, weights, random.normal(0, 1, len(VERTICALS)).astype(np.float32))
