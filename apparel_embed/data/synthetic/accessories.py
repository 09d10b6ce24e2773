"""Outlines of accessories: parameters become polygons of bags, glasses, shoes and hats."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from apparel_embed.data.synthetic.shapes import (
    Part,
    both_sides,
    box,
    excess,
    geometric,
    outline,
    polygon,
    smooth,
    span,
    superellipse,
)


@outline(
    width=(span, 0.45, 1.0),
    height=(span, 0.35, 0.85),
    power=(geometric, 2.0, 9.0),
    taper=(span, -0.3, 0.3),
    handle_height=(span, 0.2, 0.95),
    handle_width=(span, 0.35, 0.8),
    handle_thickness=(span, 0.06, 0.12),
    flap=(excess, 0.4, 1.1),
)
def bag(p: SimpleNamespace) -> list[Part]:
    """Returns a bag: body, handle, flap, clasp."""
    width, height = p.width, p.height
    body = superellipse((0.0, 0.0), (width, height), p.power)
    body[:, 0] *= 1.0 + p.taper * body[:, 1] / height
    grip = p.handle_width * width
    outer, inner = (
        superellipse((0.0, -height * 0.8), (grip - thick, p.handle_height - thick), 2.4)
        for thick in (0.0, p.handle_thickness)
    )
    parts = [Part(outer, "trim"), Part(inner, "cut"), Part(body)]
    flap = p.flap * height
    if flap > 0.1:
        drop = superellipse((0.0, -height), (width * 0.72, flap), 3.0)
        parts.append(Part(drop[drop[:, 1] > -height * 0.98]))
    parts.append(Part(superellipse((0.0, flap * 0.9 - height * 0.95), (0.09, 0.07), 4.0), "trim"))
    return parts


@outline(
    lens_width=(span, 0.26, 0.5),
    lens_height=(geometric, 0.16, 0.62),
    power=(geometric, 1.2, 6.0),
    tilt=(span, -0.4, 0.6),
    taper=(span, -0.4, 0.55),
    thickness=(geometric, 0.05, 0.24),
    bridge_width=(span, 0.05, 0.22),
    brow=(excess, 0.35, 0.32),
    wing=(excess, 0.4, 0.45),
)
def eyewear(p: SimpleNamespace) -> list[Part]:
    """Returns glasses: two lenses, frame, brow line, bridge."""
    width, height, thick = p.lens_width, p.lens_height, p.thickness
    centre = p.bridge_width + thick + width

    def lens(extra: float) -> np.ndarray:
        shape = superellipse((0.0, 0.0), (width + extra, height + extra), p.power, 48)
        low = shape[:, 1] / (height + extra)
        shape[:, 0] = shape[:, 0] * (1.0 - p.taper * low) + p.taper * 0.3 * low * width
        shape[:, 1] -= p.tilt * shape[:, 0]
        return shape + np.array([centre, 0.0])

    outer, inner = lens(thick), lens(0.0)
    right = [Part(outer)]
    if p.brow > 0.03:
        top = outer[outer[:, 1] < -p.tilt * (outer[:, 0] - centre) + 0.02]
        top = top[np.argsort(top[:, 0])]
        right.append(Part(np.vstack([top - np.array([0.0, p.brow]), top[::-1]])))
    if p.wing > 0.03:
        x, y = centre + width, -p.tilt * width - height * 0.45
        corner = (x + thick + p.wing, y - p.wing)
        right.append(polygon((x - 0.2, y - 0.14), corner, (x + thick, y + 0.25)))
    hinge, y = centre + width + thick * 0.5, -p.tilt * width - 0.3 * height
    right.append(box(hinge - 0.1, y - 0.05, hinge + 0.1, y + 0.05))
    bridge_y = -0.3 * height
    right.append(box(0.0, bridge_y - 0.05, centre - width * 0.5, bridge_y + 0.06))
    right += [Part(inner, "cut"), Part(inner, "glass")]
    return [side for part in right for side in both_sides(part.points, part.fill)]


# x coordinates of heel and ball of the foot.
_HEEL, _BALL = -0.7, 0.2


def _insole(x: np.ndarray, p: SimpleNamespace) -> np.ndarray:
    """Returns the line below the foot: level under the ball, raised at the heel."""
    share = np.clip((x + 0.4) / 0.65, 0.0, 1.0)
    y = -p.sole - p.heel_height * (1.0 - share * share * (3.0 - 2.0 * share))
    return np.stack([x, y], axis=-1)


def _toe_cap(p: SimpleNamespace) -> np.ndarray:
    """Returns the curve from the tip to the instep; `toe_shape` 1 is pointed, 4 boxy."""
    angle = np.linspace(0.0, np.pi / 2, 9)[1:]
    x = _BALL + (p.toe_length - _BALL) * np.cos(angle) ** (2 / p.toe_shape)
    return np.stack([x, -p.sole - p.vamp * np.sin(angle) ** (2 / p.toe_shape)], axis=1)


def _shaft(p: SimpleNamespace, top: float) -> np.ndarray:
    """Returns the curve from the instep over the opening at `top` to the heel."""
    height, heel, front, lean = p.shaft_height, p.heel_height, p.shaft_width, p.shaft_lean
    instep = -p.sole - p.vamp
    if height > 0.5:
        throat = min(instep - heel * 0.45 - 0.06, top * 0.6)
        rim = [(front + 0.1, throat), (front + lean, top), (_HEEL - lean, top - 0.03)]
    else:
        rim = [(front, top + height * 0.5), (-0.45, top + height * 0.4), (_HEEL, top)]
    counter = smooth(rim[-1], (_HEEL - 0.04, -p.sole - heel - 0.15), (_HEEL, -p.sole - heel))
    return np.vstack([smooth((_BALL, instep), *rim), counter])


@outline(
    heel_height=(excess, 0.15, 0.75),
    heel_width=(geometric, 0.1, 0.85),
    sole=(geometric, 0.05, 0.32),
    shaft_height=(geometric, 0.2, 1.7),
    shaft_width=(span, -0.28, 0.02),
    shaft_lean=(span, -0.22, 0.3),
    toe_length=(span, 0.6, 1.05),
    toe_shape=(geometric, 1.05, 4.5),
    vamp=(span, 0.18, 0.34),
    window=(excess, 0.45, 0.3),
    strap=(),
)
def footwear(p: SimpleNamespace) -> list[Part]:
    """Returns a shoe or boot from the side, toe to the right."""
    under = _insole(np.linspace(_HEEL, p.toe_length, 16), p)
    top = -p.sole - p.heel_height - p.shaft_height
    parts = [Part(np.vstack([under, _toe_cap(p), _shaft(p, top)]))]
    if p.window > 0.05:
        x, y = _insole(np.array(-0.12), p)
        parts.append(
            Part(superellipse((x, y - 0.03), (p.window, min(p.window * 0.8, 0.2)), 2.0), "cut")
        )
    if p.strap > 0.6 and p.shaft_height < 0.6:
        y = top - 0.26
        parts += [box(_HEEL, y, _HEEL + 0.1, top + 0.1), box(_HEEL, y, -0.12, y + 0.1)]
    parts.append(Part(np.vstack([under, (under + np.array([0.0, p.sole]))[::-1]]), "trim"))
    if p.heel_height > 0.05:
        upper = _insole(np.linspace(_HEEL, _HEEL + p.heel_width, 6), p) + np.array([0.0, 0.01])
        foot = [(_HEEL + p.heel_width * 0.85, 0.0), (_HEEL + 0.03, 0.0)]
        parts.append(Part(np.vstack([upper, foot]), "trim"))
    return parts


@outline(
    crown_height=(geometric, 0.3, 1.4),
    crown_taper=(span, -0.45, 0.7),
    crown_power=(geometric, 1.3, 8.0),
    lean=(span, -0.45, 0.45),
    brim_left=(excess, 0.2, 1.1),
    brim_right=(excess, 0.2, 1.1),
    brim_droop=(span, -0.5, 0.7),
    brim_thickness=(span, 0.07, 0.17),
    pompom=(),
    flaps=(excess, 0.45, 0.8),
    dent=(excess, 0.5, 0.35),
)
def headwear(p: SimpleNamespace) -> list[Part]:
    """Returns a hat, cap or beanie: crown, brim, band, pompom, flaps."""
    width, height, power = 0.5, p.crown_height, p.crown_power
    lean = p.lean * height
    share = np.linspace(0.0, 1.0, 17)
    half = width * (1.0 - p.crown_taper * share) * (1.0 - share**power) ** (1.0 / power)
    right, left = (
        np.stack([side + lean * share**2, -height * share], axis=1) for side in (half, -half)
    )
    parts = [Part(np.vstack([right, left[::-1]]))]
    dent = p.dent * height
    if dent > 0.04:
        above = -height - 0.1
        notch = np.array([(-0.22, above), (0.22, above), (0.0, -height + dent)])
        parts.append(Part(notch + np.array([lean, 0.0]), "cut"))
    ball = excess(p.pompom, 0.5, 0.32)
    if ball > 0.06 and dent <= 0.04:
        parts.append(Part(superellipse((lean, -height - ball * 0.5), (ball, ball), 2.0), "trim"))
    flap = p.flaps
    if flap > 0.08:
        outer = [(width, -0.1), (width + 0.02, flap * 0.6), (width - 0.16, flap)]
        parts += both_sides(smooth(*outer, (width - 0.26, flap * 0.5), (width - 0.3, 0.0)))
    parts += _brim(p, width, p.brim_right) + _brim(p, -width, p.brim_left)
    band = 0.14 + 0.1 * excess(p.pompom, 0.5, 1.0)
    at = band / height
    wide, shift = width * (1.0 - p.crown_taper * at), lean * at**2
    corners = [(-width, 0.04), (width, 0.04), (wide + shift, -band), (-wide + shift, -band)]
    return [*parts, polygon(*corners, fill="trim")]


def _brim(p: SimpleNamespace, edge: float, length: float) -> list[Part]:
    """Returns the brim at an edge of the crown, empty if it would be too short."""
    if length < 0.06:
        return []
    out = np.linspace(0.0, 1.0, 9)
    x = edge * 0.9 + np.sign(edge) * (length * out)
    line = p.brim_droop * length * out**1.6
    upper = np.stack([x, line - p.brim_thickness / 2], axis=1)
    lower = np.stack([x, line + p.brim_thickness * (0.5 - 0.3 * out)], axis=1)
    return [Part(np.vstack([upper, lower[::-1]]))]
