"""Outlines of the garments: a vector of numbers in [0, 1] per vertical becomes polygons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from apparel_embed.data.synthetic import accessories, clothes
from apparel_embed.data.synthetic.shapes import Part, fit


@dataclass(frozen=True)
class Outline:
    """How one vertical is cut.

    Attributes:
      names: names of the parameters, in the order of the vector.
      draw: maps name -> value in [0, 1] to parts, painted in order.
    """

    names: tuple[str, ...]
    draw: Callable[[Mapping[str, float]], list[Part]]

    def parts(self, vector: np.ndarray) -> list[Part]:
        """Returns the parts of the garment with parameters `vector` [len(names)], fitted."""
        return fit(self.draw(dict(zip(self.names, np.clip(vector, 0.0, 1.0)))))


OUTLINES: Mapping[str, Outline] = {
    "dress": Outline(
        (
            "length",
            "flare",
            "waist_height",
            "waist_width",
            "sleeve_length",
            "sleeve_width",
            "neck_depth",
            "neck_shape",
            "hem_slope",
            "hem_curve",
            "hem_teeth",
            "slit",
            "belt",
        ),
        clothes.dress,
    ),
    "top": Outline(
        (
            "length",
            "flare",
            "waist_width",
            "sleeve_length",
            "sleeve_width",
            "arms",
            "neck_depth",
            "neck_shape",
            "neck_width",
            "shoulder",
            "hem_curve",
            "belt",
        ),
        clothes.top,
    ),
    "bag": Outline(
        (
            "width",
            "height",
            "power",
            "taper",
            "handle_height",
            "handle_width",
            "handle_thickness",
            "flap",
        ),
        accessories.bag,
    ),
    "eyewear": Outline(
        (
            "lens_width",
            "lens_height",
            "power",
            "tilt",
            "taper",
            "thickness",
            "bridge_width",
            "brow",
            "wing",
        ),
        accessories.eyewear,
    ),
    "footwear": Outline(
        (
            "heel_height",
            "heel_width",
            "sole",
            "shaft_height",
            "shaft_width",
            "shaft_lean",
            "toe_length",
            "toe_shape",
            "vamp",
            "window",
            "strap",
        ),
        accessories.footwear,
    ),
    "trousers": Outline(
        ("length", "waist_width", "rise", "thigh", "knee", "hem_width", "stance"), clothes.trousers
    ),
    "skirt": Outline(
        (
            "length",
            "flare",
            "waist_width",
            "hip",
            "hip_height",
            "hem_curve",
            "hem_slope",
            "hem_teeth",
            "slit",
            "slit_place",
            "band",
        ),
        clothes.skirt,
    ),
    "headwear": Outline(
        (
            "crown_height",
            "crown_taper",
            "crown_power",
            "lean",
            "brim_left",
            "brim_right",
            "brim_droop",
            "brim_thickness",
            "pompom",
            "flaps",
            "dent",
        ),
        accessories.headwear,
    ),
}
