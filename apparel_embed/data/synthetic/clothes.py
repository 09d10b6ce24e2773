"""Clothes: parameters in [0, 1] become polygons of dresses, tops, skirts and trousers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from apparel_embed.data.synthetic.shapes import (
    Part,
    box,
    excess,
    flipped,
    geometric,
    smooth,
    span,
)

Values = Mapping[str, float]


def _hem(
    half_width: float, bottom: float, curve: float, slope: float, teeth: float
) -> list[tuple[float, float]]:
    """Returns hem points from right to left: curved, slanting or in points."""
    points = []
    for place in np.linspace(1.0, -1.0, 25):
        tooth = abs(((place * 3.0) % 1.0) - 0.5) * 2.0
        y = bottom + curve * (1.0 - place**2) + slope * place - teeth * tooth
        points.append((half_width * place, y))
    return points


def _torso(
    shoulder: float, neck: float, sides: list[tuple[float, float]], dip: tuple[float, float]
) -> np.ndarray:
    """Returns neckline and right-hand side; `dip` is depth and power (1 V, 2 round, 6 square)."""
    depth, power = dip
    places = np.linspace(0.0, 1.0, 9)
    neckline = np.stack([neck * places, depth * (1.0 - places**power)], axis=1)
    side = smooth([(shoulder, 0.07), *sides])
    return np.vstack([neckline, side])


def _sleeves(shoulder: float, length: float, end: float, angle: float) -> list[Part]:
    """Returns both sleeves; `angle` is measured from the vertical, in radians."""
    if length < 0.12:
        return []
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    top, armpit = np.array([shoulder - 0.06, 0.02]), np.array([shoulder - 0.07, 0.42])
    middle = np.array([shoulder, 0.2]) + along * length
    right = np.vstack([top, top + along * 0.12 + across * 0.05, middle + across * end])
    right = np.vstack([right, middle - across * end, armpit])
    return [Part(right), Part(flipped(right))]


def _belt(value: float, waist: float, waist_y: float) -> list[Part]:
    if value < 0.5:
        return []
    half = span(value, 0.02, 0.08)
    return [Part(box(-waist, waist_y - half, waist, waist_y + half), "trim")]


def dress(p: Values) -> list[Part]:
    """Returns a dress: bodice, sleeves, skirt with hem and slit, belt."""
    length = geometric(p["length"], 1.5, 3.2)
    shoulder = 0.38
    waist_y = span(p["waist_height"], 0.5, 0.62 * length)
    waist = span(p["waist_width"], 0.2, 0.46)
    hem = geometric(p["flare"], 0.28, 1.15)
    bottom = length - 0.1
    sides = [(0.37, 0.42), (waist, waist_y), (span(0.45, waist, hem), span(0.4, waist_y, bottom))]
    slope = span(p["hem_slope"], -0.35, 0.35)
    curve = span(p["hem_curve"], -0.35, 0.35)
    dip = (span(p["neck_depth"], 0.06, 0.5), geometric(p["neck_shape"], 1.0, 6.0))
    right = _torso(shoulder, 0.55 * shoulder, [*sides, (hem, bottom + slope)], dip)
    left = _torso(shoulder, 0.55 * shoulder, [*sides, (hem, bottom - slope)], dip)
    edge = _hem(hem, bottom, curve, slope, excess(p["hem_teeth"], 0.55, 0.3))
    body = np.vstack([right, edge, flipped(left[::-1])])
    parts = _sleeves(
        shoulder,
        excess(p["sleeve_length"], 0.2, 1.15),
        geometric(p["sleeve_width"], 0.08, 0.32),
        0.5,
    )
    parts.append(Part(body))
    slit = excess(p["slit"], 0.6, 0.65) * (bottom - waist_y)
    if slit > 0.1:
        foot = bottom + curve + 0.4
        x = 0.45 * hem
        parts.append(
            Part(np.array([(x * 0.8, bottom - slit), (x + 0.1, foot), (x - 0.1, foot)]), "cut")
        )
    return parts + _belt(p["belt"], waist, waist_y)


def top(p: Values) -> list[Part]:
    """Returns a top: bodice, sleeves, hem, belt."""
    length = geometric(p["length"], 0.85, 1.75)
    shoulder = span(p["shoulder"], 0.34, 0.52)
    hem = span(p["flare"], 0.34, 0.72)
    waist = span(p["waist_width"], 0.3, 0.5)
    dip = (span(p["neck_depth"], 0.06, 0.35), geometric(p["neck_shape"], 1.0, 6.0))
    sides = [(0.4, 0.42), (waist, 0.62 * length), (hem, length)]
    right = _torso(shoulder, span(p["neck_width"], 0.12, shoulder - 0.12), sides, dip)
    curve = span(p["hem_curve"], -0.15, 0.2)
    left = flipped(right[::-1])
    body = np.vstack([right, _hem(hem, length, curve, 0.0, 0.0), left])
    angle = span(p["arms"], 0.2, 1.3)
    sleeves = _sleeves(
        shoulder,
        excess(p["sleeve_length"], 0.1, 1.1),
        geometric(p["sleeve_width"], 0.1, 0.24),
        angle,
    )
    return [*sleeves, Part(body), *_belt(p["belt"], waist, 0.62 * length)]


def skirt(p: Values) -> list[Part]:
    """Returns a skirt: cut, hem, slit, waistband."""
    length = geometric(p["length"], 0.6, 2.5)
    waist = span(p["waist_width"], 0.26, 0.5)
    hem = geometric(p["flare"], 0.3, 1.3)
    slope = span(p["hem_slope"], -0.4, 0.4) * min(1.0, length)
    curve = span(p["hem_curve"], -0.35, 0.4)
    teeth = excess(p["hem_teeth"], 0.55, 0.35)
    hip_y = span(p["hip_height"], 0.25, 0.75) * length
    hip = span(p["hip"], span(0.3, waist, hem), max(hem, 0.75))
    right = smooth([(waist, 0.0), (hip, hip_y), (hem, length + slope)])
    left = smooth([(waist, 0.0), (hip, hip_y), (hem, length - slope)])
    edge = _hem(hem, length, curve, slope, teeth)
    parts = [Part(np.vstack([right, edge, flipped(left[::-1])]))]
    slit = excess(p["slit"], 0.5, 0.85) * length
    if slit > 0.1:
        foot, x = length + 0.8, span(p["slit_place"], -0.6, 0.6) * hem
        parts.append(
            Part(np.array([(x * 0.8, length - slit), (x + 0.3, foot), (x - 0.3, foot)]), "cut")
        )
    return [*parts, Part(box(-waist, -span(p["band"], 0.06, 0.4), waist, 0.0), "trim")]


def trousers(p: Values) -> list[Part]:
    """Returns trousers, from shorts to flares."""
    length = geometric(p["length"], 0.95, 2.4)
    waist = span(p["waist_width"], 0.34, 0.46)
    crotch = span(p["rise"], 0.45, 0.75)
    thigh = span(p["thigh"], 0.3, 0.48)
    hem = geometric(p["hem_width"], 0.17, 0.55)
    stance = span(p["stance"], 0.04, 0.5) * (length - crotch) / 1.7
    knee_y = span(0.5, crotch, length)
    knee = span(p["knee"], 0.18, 0.36)
    outer = smooth(
        [
            (waist, 0.1),
            (max(waist + 0.05, thigh + 0.06), crotch),
            (0.03 + stance * 0.5 + knee, knee_y),
            (0.03 + stance + hem, length),
        ]
    )
    inner = smooth([(0.03 + stance, length), (0.03 + stance * 0.5, knee_y), (0.0, crotch)])
    leg = np.vstack([outer, inner, [(0.0, 0.1)]])
    return [Part(leg), Part(flipped(leg)), Part(box(-waist, 0.0, waist, 0.12), "trim")]
