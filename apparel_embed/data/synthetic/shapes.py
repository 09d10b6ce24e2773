"""Polygon helpers for garments drawn in garment units (x right, y down)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """One closed polygon of a garment.

    Attributes:
      points: float array [n, 2], corners in garment units.
      fill: "body" takes the print, "trim" the trim colour, "glass" a see-through tint, and "cut"
        removes what was painted before, so that the background shows.
    """

    points: np.ndarray
    fill: str = "body"


def span(value: float, low: float, high: float) -> float:
    """Returns `value` in [0, 1] mapped linearly to [low, high]."""
    return low + (high - low) * float(value)


def geometric(value: float, low: float, high: float) -> float:
    """Returns `value` in [0, 1] mapped to [low, high] in equal ratios."""
    return low * (high / low) ** float(value)


def excess(value: float, start: float, high: float) -> float:
    """Returns 0 up to `start`, then a linear rise to `high` at 1: a feature that may be absent."""
    return high * max(0.0, float(value) - start) / (1.0 - start)


def smooth(points: list[tuple[float, float]], per_edge: int = 6) -> np.ndarray:
    """Returns an open Catmull-Rom curve [m, 2] through `points`."""
    knots = np.asarray(points, np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0.0, 1.0, per_edge, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.vstack([curve.transpose(1, 0, 2).reshape(-1, 2), knots[-1:]])


def superellipse(
    centre: tuple[float, float], radii: tuple[float, float], power: float, corners: int = 40
) -> np.ndarray:
    """Returns |x/rx|^power + |y/ry|^power = 1 as [corners, 2]: 1 diamond, 2 ellipse, 8 box."""
    angle = np.linspace(0.0, 2 * np.pi, corners, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    x = np.sign(cosine) * np.abs(cosine) ** (2.0 / power)
    y = np.sign(sine) * np.abs(sine) ** (2.0 / power)
    return np.stack([centre[0] + radii[0] * x, centre[1] + radii[1] * y], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Returns an upright rectangle as [4, 2]."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def flipped(points: np.ndarray) -> np.ndarray:
    """Returns the points mirrored left to right, in the same order."""
    return points * np.array([-1.0, 1.0])


def dense(points: np.ndarray, step: float = 0.12) -> np.ndarray:
    """Returns the polygon with edges longer than `step` divided, so that it can be bent."""
    edges = np.roll(points, -1, axis=0) - points
    counts = np.maximum(1, np.ceil(np.hypot(edges[:, 0], edges[:, 1]) / step)).astype(int)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    share = place / np.repeat(counts, counts)
    return np.repeat(points, counts, axis=0) + np.repeat(edges, counts, axis=0) * share[:, None]


def fit(parts: list[Part], half_extent: float = 0.92) -> list[Part]:
    """Returns the parts centred and scaled so that the longer side is 2 * `half_extent`."""
    everything = np.vstack([part.points for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = 2 * half_extent / float((high - low).max())
    return [Part(dense((part.points - (low + high) / 2) * scale), part.fill) for part in parts]
