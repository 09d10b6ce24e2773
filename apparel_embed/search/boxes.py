"""Boxes as people write them."""

from __future__ import annotations

import re

from apparel_embed.data.pictures import Box

_EDGE = re.compile(r"\s*(-?\d{1,7}(?:\.\d{1,20})?)\s*", re.ASCII)


def parse_box(text: str) -> Box | None:
    """Returns a box from `x_min,y_min,x_max,y_max`; None from an empty text.

    Raises:
      ValueError: the message says what is allowed.
    """
    if not text.strip():
        return None
    edges = [_EDGE.fullmatch(edge) for edge in text.split(",")]
    if len(edges) != 4 or None in edges:
        raise ValueError("the box is not x_min,y_min,x_max,y_max in pixels")
    x_min, y_min, x_max, y_max = (float(edge.group(1)) for edge in edges if edge)
    if not (x_min < x_max and y_min < y_max):
        raise ValueError("the box is empty; x_min < x_max and y_min < y_max are needed")
    return x_min, y_min, x_max, y_max
