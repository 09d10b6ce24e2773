"""Outlines of clothes: parameters become polygons of dresses, tops, skirts and trousers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from apparel_embed.data.synthetic.shapes import (
    Part,
    both_sides,
    box,
    excess,
    flipped,
    geometric,
    outline,
    polygon,
    smooth,
    span,
)


def _hem(
    half_width: float, bottom: float, curve: float, slope: float = 0.0, teeth: float = 0.0
) -> np.ndarray:
    """Returns hem points from right to left: curved, slanted or toothed."""
    place = np.linspace(1.0, -1.0, 25)
    tooth = np.abs(((place * 3.0) % 1.0) - 0.5) * 2.0
    y = bottom + curve * (1.0 - place**2) + slope * place - teeth * tooth
    return np.stack([half_width * place, y], axis=1)


def _torso(
    shoulder: float, neck: float, sides: list[tuple[float, float]], depth: float, power: float
) -> np.ndarray:
    """Returns neckline and right side; `power` shapes the neckline: 1 V, 2 round, 6 square."""
    places = np.linspace(0.0, 1.0, 9)
    neckline = np.stack([neck * places, depth * (1.0 - places**power)], axis=1)
    return np.vstack([neckline, smooth((shoulder, 0.07), *sides)])


def _sleeves(shoulder: float, length: float, end: float, angle: float) -> list[Part]:
    """Returns both sleeves; `angle` is measured from the vertical, in radians."""
    if length < 0.12:
        return []
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    top, armpit = np.array([shoulder - 0.06, 0.02]), np.array([shoulder - 0.07, 0.42])
    middle = np.array([shoulder, 0.2]) + along * length
    upper = top + along * 0.12 + across * 0.05
    return both_sides(np.vstack([top, upper, middle + across * end, middle - across * end, armpit]))


def _slit(x: float, top: float, foot: float, spread: float) -> Part:
    return polygon((x * 0.8, top), (x + spread, foot), (x - spread, foot), fill="cut")


def _belt(value: float, waist: float, waist_y: float) -> list[Part]:
    half = span(value, 0.02, 0.08)
    return [box(-waist, waist_y - half, waist, waist_y + half, "trim")] if value >= 0.5 else []


@outline(
    length=(geometric, 1.5, 3.2),
    flare=(geometric, 0.28, 1.15),
    waist_height=(),
    waist_width=(span, 0.2, 0.46),
    sleeve_length=(excess, 0.2, 1.15),
    sleeve_width=(geometric, 0.08, 0.32),
    neck_depth=(span, 0.06, 0.5),
    neck_shape=(geometric, 1.0, 6.0),
    hem_slope=(span, -0.35, 0.35),
    hem_curve=(span, -0.35, 0.35),
    hem_teeth=(excess, 0.55, 0.3),
    slit=(excess, 0.6, 0.65),
    belt=(),
)
def dress(p: SimpleNamespace) -> list[Part]:
    """Returns a dress: bodice, sleeves, skirt with hem and slit, belt."""
    shoulder, waist, hem, bottom = 0.38, p.waist_width, p.flare, p.length - 0.1
    waist_y = span(p.waist_height, 0.5, 0.62 * p.length)
    sides = [(0.37, 0.42), (waist, waist_y), (span(0.45, waist, hem), span(0.4, waist_y, bottom))]
    right, left = (
        _torso(shoulder, 0.55 * shoulder, [*sides, (hem, foot)], p.neck_depth, p.neck_shape)
        for foot in (bottom + p.hem_slope, bottom - p.hem_slope)
    )
    edge = _hem(hem, bottom, p.hem_curve, p.hem_slope, p.hem_teeth)
    body = Part(np.vstack([right, edge, flipped(left[::-1])]))
    parts = [*_sleeves(shoulder, p.sleeve_length, p.sleeve_width, 0.5), body]
    slit = p.slit * (bottom - waist_y)
    if slit > 0.1:
        parts.append(_slit(0.45 * hem, bottom - slit, bottom + p.hem_curve + 0.4, 0.1))
    return parts + _belt(p.belt, waist, waist_y)


@outline(
    length=(geometric, 0.85, 1.75),
    flare=(span, 0.34, 0.72),
    waist_width=(span, 0.3, 0.5),
    sleeve_length=(excess, 0.1, 1.1),
    sleeve_width=(geometric, 0.1, 0.24),
    arms=(span, 0.2, 1.3),
    neck_depth=(span, 0.06, 0.35),
    neck_shape=(geometric, 1.0, 6.0),
    neck_width=(),
    shoulder=(span, 0.34, 0.52),
    hem_curve=(span, -0.15, 0.2),
    belt=(),
)
def top(p: SimpleNamespace) -> list[Part]:
    """Returns a top: bodice, sleeves, hem, belt."""
    waist_y = 0.62 * p.length
    sides = [(0.4, 0.42), (p.waist_width, waist_y), (p.flare, p.length)]
    neck = span(p.neck_width, 0.12, p.shoulder - 0.12)
    right = _torso(p.shoulder, neck, sides, p.neck_depth, p.neck_shape)
    body = np.vstack([right, _hem(p.flare, p.length, p.hem_curve), flipped(right[::-1])])
    sleeves = _sleeves(p.shoulder, p.sleeve_length, p.sleeve_width, p.arms)
    return [*sleeves, Part(body), *_belt(p.belt, p.waist_width, waist_y)]


@outline(
    length=(geometric, 0.6, 2.5),
    flare=(geometric, 0.3, 1.3),
    waist_width=(span, 0.26, 0.5),
    hip=(),
    hip_height=(span, 0.25, 0.75),
    hem_curve=(span, -0.35, 0.4),
    hem_slope=(span, -0.4, 0.4),
    hem_teeth=(excess, 0.55, 0.35),
    slit=(excess, 0.5, 0.85),
    slit_place=(span, -0.6, 0.6),
    band=(span, 0.06, 0.4),
)
def skirt(p: SimpleNamespace) -> list[Part]:
    """Returns a skirt: cut, hem, slit, waistband."""
    waist, hem, length = p.waist_width, p.flare, p.length
    slope = p.hem_slope * min(1.0, length)
    hip = (span(p.hip, span(0.3, waist, hem), max(hem, 0.75)), p.hip_height * length)
    right, left = (
        smooth((waist, 0.0), hip, (hem, foot)) for foot in (length + slope, length - slope)
    )
    edge = _hem(hem, length, p.hem_curve, slope, p.hem_teeth)
    parts = [Part(np.vstack([right, edge, flipped(left[::-1])]))]
    slit = p.slit * length
    if slit > 0.1:
        parts.append(_slit(p.slit_place * hem, length - slit, length + 0.8, 0.3))
    return [*parts, box(-waist, -p.band, waist, 0.0, "trim")]


@outline(
    length=(geometric, 0.95, 2.4),
    waist_width=(span, 0.34, 0.46),
    rise=(span, 0.45, 0.75),
    thigh=(span, 0.3, 0.48),
    knee=(span, 0.18, 0.36),
    hem_width=(geometric, 0.17, 0.55),
    stance=(span, 0.04, 0.5),
)
def trousers(p: SimpleNamespace) -> list[Part]:
    """Returns trousers, from shorts to flares."""
    length, waist, crotch = p.length, p.waist_width, p.rise
    stance = p.stance * (length - crotch) / 1.7
    knee_y = span(0.5, crotch, length)
    outer = smooth(
        (waist, 0.1),
        (max(waist + 0.05, p.thigh + 0.06), crotch),
        (0.03 + stance * 0.5 + p.knee, knee_y),
        (0.03 + stance + p.hem_width, length),
    )
    inner = smooth((0.03 + stance, length), (0.03 + stance * 0.5, knee_y), (0.0, crotch))
    leg = np.vstack([outer, inner, [(0.0, 0.1)]])
    return [*both_sides(leg), box(-waist, 0.0, waist, 0.12, "trim")]
