"""Accessories: parameters in [0, 1] become polygons of bags, glasses, shoes and hats."""

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
    superellipse,
)

Values = Mapping[str, float]


def bag(p: Values) -> list[Part]:
    """Returns a bag: body, handle, flap, clasp."""
    width, height = span(p["width"], 0.45, 1.0), span(p["height"], 0.35, 0.85)
    body = superellipse((0.0, 0.0), (width, height), geometric(p["power"], 2.0, 9.0))
    body[:, 0] *= 1.0 + span(p["taper"], -0.3, 0.3) * body[:, 1] / height
    handle = span(p["handle_height"], 0.2, 0.95)
    grip = span(p["handle_width"], 0.35, 0.8) * width
    thick = span(p["handle_thickness"], 0.06, 0.12)
    top = -height * 0.8
    outer = superellipse((0.0, top), (grip, handle), 2.4)
    inner = superellipse((0.0, top), (grip - thick, handle - thick), 2.4)
    parts = [Part(outer, "trim"), Part(inner, "cut"), Part(body)]
    flap = excess(p["flap"], 0.4, 1.1) * height
    if flap > 0.1:
        drop = superellipse((0.0, -height), (width * 0.72, flap), 3.0)
        parts.append(Part(drop[drop[:, 1] > -height * 0.98]))
    parts.append(Part(superellipse((0.0, flap * 0.9 - height * 0.95), (0.09, 0.07), 4.0), "trim"))
    return parts


def eyewear(p: Values) -> list[Part]:
    """Returns glasses: two lenses, frame, brow line, bridge."""
    width = span(p["lens_width"], 0.26, 0.5)
    height = geometric(p["lens_height"], 0.16, 0.62)
    power = geometric(p["power"], 1.2, 6.0)
    thick = geometric(p["thickness"], 0.05, 0.24)
    bridge = span(p["bridge_width"], 0.05, 0.22)
    tilt = span(p["tilt"], -0.4, 0.6)
    taper = span(p["taper"], -0.4, 0.55)
    brow = excess(p["brow"], 0.35, 0.32)
    wing = excess(p["wing"], 0.4, 0.45)
    centre = bridge + thick + width

    def lens(extra: float) -> np.ndarray:
        shape = superellipse((0.0, 0.0), (width + extra, height + extra), power, 48)
        low = shape[:, 1] / (height + extra)
        shape[:, 0] = shape[:, 0] * (1.0 - taper * low) + taper * 0.3 * low * width
        shape[:, 1] -= tilt * shape[:, 0]
        return shape + np.array([centre, 0.0])

    outer, inner = lens(thick), lens(0.0)
    right = [Part(outer)]
    if brow > 0.03:
        top = outer[outer[:, 1] < -tilt * (outer[:, 0] - centre) + 0.02]
        top = top[np.argsort(top[:, 0])]
        right.append(Part(np.vstack([top - np.array([0.0, brow]), top[::-1]])))
    if wing > 0.03:
        x = centre + width
        y = -tilt * width - height * 0.45
        corner = (x + thick + wing, y - wing)
        right.append(Part(np.array([(x - 0.2, y - 0.14), corner, (x + thick, y + 0.25)])))
    hinge, y = centre + width + thick * 0.5, -tilt * width - 0.3 * height
    right.append(Part(box(hinge - 0.1, y - 0.05, hinge + 0.1, y + 0.05)))
    bridge_y = -0.3 * height
    right.append(Part(box(0.0, bridge_y - 0.05, centre - width * 0.5, bridge_y + 0.06)))
    right.extend([Part(inner, "cut"), Part(inner, "glass")])
    left = [Part(flipped(part.points), part.fill) for part in right]
    return [part for pair in zip(right, left) for part in pair]


# Where heel and ball of the foot stand, in shoe units.
_HEEL, _BALL = -0.7, 0.2


def _insole(x: np.ndarray, sole: float, heel: float) -> np.ndarray:
    """Returns the height below the foot: level under the ball, raised by `heel` at the back."""
    share = np.clip((x + 0.4) / 0.65, 0.0, 1.0)
    return -sole - heel * (1.0 - share * share * (3.0 - 2.0 * share))


def _toe_cap(toe: float, sole: float, vamp: float, power: float) -> np.ndarray:
    """Returns the curve from the tip to the instep; `power` 1 is pointed, 4 boxy."""
    angle = np.linspace(0.0, np.pi / 2, 9)[1:]
    x = _BALL + (toe - _BALL) * np.cos(angle) ** (2 / power)
    return np.stack([x, -sole - vamp * np.sin(angle) ** (2 / power)], axis=1)


def _shaft(p: Values, sole: float, heel: float, vamp: float) -> tuple[np.ndarray, float, float]:
    """Returns the curve from the instep over the opening to the heel, its top and its height."""
    height = geometric(p["shaft_height"], 0.2, 1.7)
    front, lean = span(p["shaft_width"], -0.28, 0.02), span(p["shaft_lean"], -0.22, 0.3)
    top, instep = -sole - heel - height, -sole - vamp
    if height > 0.5:
        throat = min(instep - heel * 0.45 - 0.06, top * 0.6)
        rim = [(front + 0.1, throat), (front + lean, top), (_HEEL - lean, top - 0.03)]
    else:
        rim = [(front, top + height * 0.5), (-0.45, top + height * 0.4), (_HEEL, top)]
    counter = smooth([rim[-1], (_HEEL - 0.04, -sole - heel - 0.15), (_HEEL, -sole - heel)])
    return np.vstack([smooth([(_BALL, instep), *rim]), counter]), top, height


def footwear(p: Values) -> list[Part]:
    """Returns a shoe or boot from the side, toe to the right."""
    heel = excess(p["heel_height"], 0.15, 0.75)
    sole = geometric(p["sole"], 0.05, 0.32)
    toe = span(p["toe_length"], 0.6, 1.05)
    vamp = span(p["vamp"], 0.18, 0.34)
    along = np.linspace(_HEEL, toe, 16)
    under = np.stack([along, _insole(along, sole, heel)], axis=1)
    cap = _toe_cap(toe, sole, vamp, geometric(p["toe_shape"], 1.05, 4.5))
    shaft, top, height = _shaft(p, sole, heel, vamp)
    parts = [Part(np.vstack([under, cap, shaft]))]
    window = excess(p["window"], 0.45, 0.3)
    if window > 0.05:
        centre = (-0.12, float(_insole(np.array(-0.12), sole, heel)) - 0.03)
        parts.append(Part(superellipse(centre, (window, min(window * 0.8, 0.2)), 2.0), "cut"))
    if p["strap"] > 0.6 and height < 0.6:
        y = top - 0.26
        parts.append(Part(box(_HEEL, y, _HEEL + 0.1, top + 0.1)))
        parts.append(Part(box(_HEEL, y, -0.12, y + 0.1)))
    parts.append(Part(np.vstack([under, (under + np.array([0.0, sole]))[::-1]]), "trim"))
    if heel > 0.05:
        width = geometric(p["heel_width"], 0.1, 0.85)
        x = np.linspace(_HEEL, _HEEL + width, 6)
        upper = np.stack([x, _insole(x, sole, heel) + 0.01], axis=1)
        foot = np.array([(_HEEL + width * 0.85, 0.0), (_HEEL + 0.03, 0.0)])
        parts.append(Part(np.vstack([upper, foot]), "trim"))
    return parts


def headwear(p: Values) -> list[Part]:
    """Returns a hat, cap or beanie: crown, brim, band, pompom, flaps."""
    width = 0.5
    height = geometric(p["crown_height"], 0.3, 1.4)
    taper = span(p["crown_taper"], -0.45, 0.7)
    power = geometric(p["crown_power"], 1.3, 8.0)
    lean = span(p["lean"], -0.45, 0.45) * height
    share = np.linspace(0.0, 1.0, 17)
    half = width * (1.0 - taper * share) * (1.0 - share**power) ** (1.0 / power)
    y = -height * share
    dent = excess(p["dent"], 0.5, 0.35) * height
    right = np.stack([half + lean * share**2, y], axis=1)
    left = np.stack([-half + lean * share**2, y], axis=1)
    parts = [Part(np.vstack([right, left[::-1]]))]
    if dent > 0.04:
        notch = np.array([(-0.22, -height - 0.1), (0.22, -height - 0.1), (0.0, -height + dent)])
        parts.append(Part(notch + np.array([lean, 0.0]), "cut"))
    ball = excess(p["pompom"], 0.5, 0.32)
    if ball > 0.06 and dent <= 0.04:
        parts.append(Part(superellipse((lean, -height - ball * 0.5), (ball, ball), 2.0), "trim"))
    flap = excess(p["flaps"], 0.45, 0.8)
    if flap > 0.08:
        side = smooth(
            [
                (width, -0.1),
                (width + 0.02, flap * 0.6),
                (width - 0.16, flap),
                (width - 0.26, flap * 0.5),
                (width - 0.3, 0.0),
            ]
        )
        parts.extend([Part(side), Part(flipped(side))])
    reach = {1.0: excess(p["brim_right"], 0.2, 1.1), -1.0: excess(p["brim_left"], 0.2, 1.1)}
    droop = span(p["brim_droop"], -0.5, 0.7)
    thick = span(p["brim_thickness"], 0.07, 0.17)
    for direction, length in reach.items():
        if length < 0.06:
            continue
        out = np.linspace(0.0, 1.0, 9)
        x = direction * (width * 0.9 + length * out)
        line = droop * length * out**1.6
        edge = np.stack([x, line - thick / 2], axis=1)
        lower = np.stack([x, line + thick * (0.5 - 0.3 * out)], axis=1)
        parts.append(Part(np.vstack([edge, lower[::-1]])))
    band = 0.14 + 0.1 * excess(p["pompom"], 0.5, 1.0)
    at = band / height
    wide = width * (1.0 - taper * at)
    shift = lean * at**2
    parts.append(
        Part(
            np.array(
                [(-width, 0.04), (width, 0.04), (wide + shift, -band), (-wide + shift, -band)]
            ),
            "trim",
        )
    )
    return parts
