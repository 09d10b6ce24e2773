"""Garment polygons in garment units (x right, y down), shaped by parameters in [0, 1]."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One closed polygon of a garment.

    Attributes:
      points: float array [n, 2], corners in garment units.
      fill: "body" gets the print, "trim" the trim colour, "glass" a transparent tint; "cut" removes
        what was painted before, so that the background shows.
    """

    points: np.ndarray
    fill: str = "body"


@dataclass(frozen=True)
class Outline:
    """The outline of a vertical.

    Attributes:
      ranges: for each parameter the function that maps its value from [0, 1], and the function's
        other arguments; empty if `draw` takes the value itself.
      draw: maps parameters to parts, painted in order.
    """

    ranges: Mapping[str, tuple[Any, ...]]
    draw: Callable[[SimpleNamespace], list[Part]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of a vector."""
        return tuple(self.ranges)

    def parts(self, vector: np.ndarray) -> list[Part]:
        """Returns the parts, scaled to the frame, of a garment with parameters [len(names)]."""
        values = zip(self.ranges.items(), np.clip(vector, 0.0, 1.0))
        mapped = {name: how[0](value, *how[1:]) if how else value for (name, how), value in values}
        return _fit(self.draw(SimpleNamespace(**mapped)))


def outline(**ranges: tuple[Any, ...]) -> Callable[..., Outline]:
    """Turns the decorated function, which draws parameters in these ranges, into an `Outline`."""
    return functools.partial(Outline, ranges)


def span(value: float, low: float, high: float) -> float:
    """Returns `value` in [0, 1] mapped linearly to [low, high]."""
    return low + (high - low) * float(value)


def geometric(value: float, low: float, high: float) -> float:
    """Returns `value` in [0, 1] mapped geometrically to [low, high]."""
    return low * (high / low) ** float(value)


def excess(value: float, start: float, high: float) -> float:
    """Returns 0 up to `start`, then a linear rise to `high` at 1: a feature that may be absent."""
    return high * max(0.0, float(value) - start) / (1.0 - start)


def smooth(*points: tuple[float, float]) -> np.ndarray:
    """Returns an open Catmull-Rom curve [m, 2] through the points."""
    knots = np.asarray(points, np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0.0, 1.0, 6, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.vstack([curve.transpose(1, 0, 2).reshape(-1, 2), knots[-1:]])


def superellipse(
    centre: tuple[float, float], radii: tuple[float, float], power: float, corners: int = 40
) -> np.ndarray:
    """Returns |x/rx|^power + |y/ry|^power = 1, [corners, 2]; power 1 diamond, 2 ellipse, 8 box."""
    angle = np.linspace(0.0, 2 * np.pi, corners, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.array(centre) + np.array(radii) * (np.sign(unit) * np.abs(unit) ** (2.0 / power))


def polygon(*corners: tuple[float, float], fill: str = "body") -> Part:
    """Returns the part with these corners."""
    return Part(np.array(corners), fill)


def box(left: float, top: float, right: float, bottom: float, fill: str = "body") -> Part:
    """Returns an axis-aligned rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom), fill=fill)


def flipped(points: np.ndarray) -> np.ndarray:
    """Returns the points mirrored left to right, in the same order."""
    return points * np.array([-1.0, 1.0])


def both_sides(points: np.ndarray, fill: str = "body") -> list[Part]:
    """Returns a part and its mirror image."""
    return [Part(points, fill), Part(flipped(points), fill)]


def _dense(points: np.ndarray, step: float = 0.12) -> np.ndarray:
    """Returns the polygon with edges longer than `step` divided, to allow bending."""
    edges = np.roll(points, -1, axis=0) - points
    counts = np.maximum(1, np.ceil(np.hypot(edges[:, 0], edges[:, 1]) / step)).astype(int)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    share = place / np.repeat(counts, counts)
    return np.repeat(points, counts, axis=0) + np.repeat(edges, counts, axis=0) * share[:, None]


def _fit(parts: list[Part], half_extent: float = 0.92) -> list[Part]:
    """Returns the parts centred and scaled so that the longer side is 2 * `half_extent`."""
    everything = np.vstack([part.points for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = 2 * half_extent / float((high - low).max())
    return [Part(_dense((part.points - (low + high) / 2) * scale), part.fill) for part in parts]
