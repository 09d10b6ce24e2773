"""Prints and colours: a vector of numbers in [0, 1] becomes the surface of a garment."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

PRINT_NAMES = (
    "family", "hue", "tone", "accent_hue", "accent_tone", "scale", "angle", "share",
)  # fmt: skip

# Half width of the soft edge of a motif, in periods; avoids moire in fine prints.
_EDGE = 0.06

Field = np.ndarray
_NOWHERE = np.zeros(())


@dataclass(frozen=True)
class Surface:
    """A print with its palette.

    Attributes:
      family: name in `FAMILIES`.
      palette: uint8 [3, 3], RGB of ground, accent and second accent.
      period: size of one repeat in garment units; a garment is about 2 units long.
      angle: rotation of the print in radians.
      share: fraction of a repeat covered by the accent, in [0.25, 0.6].
    """

    family: str
    palette: np.ndarray
    period: float
    angle: float
    share: float


def _rise(value: Field, threshold: float | Field) -> Field:
    return np.clip((value - threshold) / (2 * _EDGE) + 0.5, 0.0, 1.0)


def _saw(value: Field) -> Field:
    """Returns the distance from the border of the repeat: 0 at the border, 0.5 in the middle."""
    return 0.5 - np.abs(value - np.floor(value) - 0.5)


def _bars(value: Field, share: float) -> Field:
    return _rise(_saw(value) * 2.0, 1.0 - share)


def _cell(u: Field, v: Field) -> tuple[Field, Field]:
    """Returns coordinates in [-0.5, 0.5] within cells laid like bricks."""
    row = np.floor(v)
    shifted = u + 0.5 * (row % 2)
    return shifted - np.floor(shifted) - 0.5, v - row - 0.5


def _dots(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    return _rise(0.22 + 0.3 * share - np.hypot(*_cell(u, v)), 0.0), _NOWHERE


def _rings(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    radius = np.hypot(*_cell(u, v))
    return _rise(0.13 - np.abs(radius - 0.3), 0.0), _rise(0.12 - radius, 0.0)


def _argyle(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    x, y = u * 0.6 + v * 0.4, u * 0.6 - v * 0.4
    diamond = _bars(x, 0.5) * _bars(y, 0.5) + (1 - _bars(x, 0.5)) * (1 - _bars(y, 0.5))
    return diamond, np.maximum(_bars(x + 0.25, 0.1), _bars(y + 0.25, 0.1))


def _floral(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    x, y = _cell(u * 0.8, v * 0.8)
    radius = np.hypot(x, y)
    petal = 0.26 + 0.16 * np.cos(5.0 * np.arctan2(y, x))
    return _rise(petal - radius, 0.0), _rise(0.13 - radius, 0.0)


def _camouflage(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    x, y = u * 2.6, v * 2.6
    first = np.sin(x + 1.3 * np.sin(0.7 * y)) + np.sin(1.1 * y + 1.7 * np.sin(0.6 * x + 1.0))
    second = np.sin(0.8 * x + 2.0 + 1.5 * np.sin(0.9 * y)) + np.sin(0.9 * y - 1.2 * np.sin(x))
    return _rise(first, 0.2), _rise(second, 0.7)


def _leopard(u: Field, v: Field, share: float) -> tuple[Field, Field]:
    x, y = _cell(u + 0.18 * np.sin(2.1 * v), v + 0.18 * np.sin(2.7 * u))
    radius = np.hypot(x, y * 1.25)
    gap = np.cos(np.arctan2(y, x) * 2.0 + np.floor(v) * 1.7 + np.floor(u))
    spot = _rise(0.34 - radius, 0.0) * _rise(radius, 0.2) * _rise(gap, -0.6)
    return spot, _rise(0.18 - radius, 0.0)


# Functions of coordinates in repeats and the accent's share; they return both accents' strengths.
FAMILIES: Mapping[str, Callable[[Field, Field, float], tuple[Field, Field]]] = {
    "solid": lambda u, v, share: (np.zeros_like(u), _NOWHERE),
    "stripes": lambda u, v, share: (_bars(v, share), _NOWHERE),
    "double_stripes": lambda u, v, share: (_bars(v, share), _bars(v + 0.5, 0.16)),
    "gingham": lambda u, v, share: (0.5 * (_bars(u, 0.5) + _bars(v, 0.5)), _NOWHERE),
    "tartan": lambda u, v, share: (
        0.5 * (_bars(u, share) + _bars(v, share)),
        np.maximum(_bars(u + 0.5, 0.12), _bars(v + 0.5, 0.12)),
    ),
    "windowpane": lambda u, v, share: (np.maximum(_bars(u, 0.2), _bars(v, 0.2)), _NOWHERE),
    "dots": _dots,
    "rings": _rings,
    "chevron": lambda u, v, share: (_bars(v + 1.2 * _saw(u * 0.5), share), _NOWHERE),
    "argyle": _argyle,
    "floral": _floral,
    "camouflage": _camouflage,
    "leopard": _leopard,
    "zebra": lambda u, v, share: (
        _bars(v + 0.35 * np.sin(1.9 * u) + 0.15 * np.sin(4.3 * u + 1.0), share),
        _NOWHERE,
    ),
    "ombre": lambda u, v, share: (0.5 + 0.5 * np.sin(np.pi * v * 0.5), _NOWHERE),
    "blocks": lambda u, v, share: (
        _rise(np.sin(np.pi * v * 0.45), 0.0),
        _bars(v * 0.45 + 0.5, 0.16),
    ),
}

# Saturation and value of palette colours: vivid, dark, pastel, pale, blackish, medium.
_TONES = ((0.85, 0.9), (0.7, 0.42), (0.35, 0.97), (0.06, 0.94), (0.15, 0.16), (0.55, 0.68))


def surface(vector: np.ndarray) -> Surface:
    """Returns the print with parameters `vector` [len(PRINT_NAMES)], each in [0, 1]."""
    p = dict(zip(PRINT_NAMES, np.clip(vector, 0.0, 1.0)))
    names = list(FAMILIES)
    family = names[min(int(p["family"] * len(names)), len(names) - 1)]
    tones = len(_TONES)
    ground = int(min(p["tone"] * tones, tones - 1))
    # The accent never has the ground's tone, so every print is visible even in grey light.
    step = 1 + int(min(p["accent_tone"] * (tones - 1), tones - 2))
    accent_hue = p["hue"] + p["accent_hue"]
    hues_and_tones = [
        (p["hue"], ground),
        (accent_hue, (ground + step) % tones),
        (accent_hue + 0.4, (ground + step % (tones - 1) + 1) % tones),
    ]
    palette = [colorsys.hsv_to_rgb(hue % 1.0, *_TONES[tone]) for hue, tone in hues_and_tones]
    return Surface(
        family=family,
        palette=np.round(np.array(palette) * 255).astype(np.uint8),
        period=0.2 * 3.0 ** float(p["scale"]),
        angle=np.pi * (np.floor(float(p["angle"]) * 3.999) / 4.0),
        share=0.25 + 0.35 * float(p["share"]),
    )


def paint(look: Surface, x: Field, y: Field) -> np.ndarray:
    """Returns the RGB surface, uint8 [..., 3], at garment coordinates `x`, `y`."""
    cosine, sine = np.cos(look.angle) / look.period, np.sin(look.angle) / look.period
    u, v = x * cosine + y * sine, y * cosine - x * sine
    accent, second = FAMILIES[look.family](u, v, look.share)
    ground, first, last = look.palette.astype(np.float32)
    levels = np.linspace(0.0, 1.0, 256, dtype=np.float32)[:, None]
    ramp = np.round(ground + (first - ground) * levels).astype(np.uint8)
    rgb = ramp[np.round(accent * 255).astype(np.uint8)]
    rgb[second > 0.5] = last.astype(np.uint8)
    return rgb
