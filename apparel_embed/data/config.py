"""Augmentation of training images, and the shares of verticals in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from apparel_embed.common.settings import setting

VERTICAL_WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "images": lambda counts: counts,
    "equal": np.ones_like,
    "sqrt": np.sqrt,
}
"""Functions, by name, from the verticals' image counts to their relative shares in training."""


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of each augmentation; 0 switches it off.

    Examples:
      >>> AugmentConfig(flip=False, rotation=10.0, erase=0.3).zoom
      0.1
    """

    flip: bool = setting(True, "mirror half of the images")
    rotation: float = setting(
        0.0, "largest angle either way, in degrees; 0 is off", 0.0, 180.0, rare=True
    )
    zoom: float = setting(
        0.1, "largest change in size either way, as a fraction of the side; 0 is off", 0.0, 0.9
    )
    translation: float = setting(
        0.1, "largest shift either way, as a fraction of the side; 0 is off", 0.0, 0.9
    )
    brightness: float = setting(
        0.0,
        "largest change either way, as a fraction of the value range; 0 is off",
        0.0,
        1.0,
        rare=True,
    )
    contrast: float = setting(
        0.0, "largest relative change either way; 0 is off", 0.0, 1.0, rare=True
    )
    saturation: float = setting(
        0.0, "largest change either way, 1 from grey to full; 0 is off", 0.0, 1.0, rare=True
    )
    hue: float = setting(
        0.0, "largest shift either way, 1 is half the hue circle; 0 is off", 0.0, 1.0, rare=True
    )
    erase: float = setting(
        0.0,
        "largest side of an erased rectangle, as a fraction of the side; 0 is off",
        0.0,
        1.0,
        rare=True,
    )
