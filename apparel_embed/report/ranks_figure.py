"""Rank lists as a figure: thumbnails in frames."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from apparel_embed.report.drawing import literal, new_figure, png_bytes
from apparel_embed.report.parts import Picture, RankedQuery

RIGHT = "#1a8f4c"
WRONG = "#c62828"
_QUERY = "#444444"
# In units of one thumbnail.
_CELL = 1.14
_LINE = 1.5
_HITS_FROM = 1.5
_TITLE = 0.3


def rank_lists_picture(
    name: str, vertical: str, queries: Sequence[RankedQuery], caption: str
) -> Picture:
    """Draws the rank lists of a vertical.

    Args:
      name: of the file, without its suffix.
      vertical: its name.
      queries: with their lists.
      caption: what stands behind them.
    """
    lines = sum(len(query.lists) for query in queries)
    most = max((len(found.hits) for query in queries for found in query.lists), default=0)
    width = _HITS_FROM + max(most, 4) * _CELL
    height = _TITLE + lines * _LINE
    figure = new_figure(0.78 * width, 0.78 * height)
    axis = figure.add_subplot()
    axis.set_axis_off()
    top = _TITLE
    axis.text(0, 0, literal(vertical), va="center", fontsize=12, fontweight="bold")
    for query in queries:
        axis.plot((0, width), (top, top), color="#d0d0d0", linewidth=0.8)
        _draw_picture(axis, query.jpeg, 0, top + 0.35, _QUERY)
        for found in query.lists:
            said = f"{query.label}: {found.model}, AP@R {found.average_precision:.2f}"
            axis.text(_HITS_FROM, top + 0.18, said, va="center", fontsize=9)
            for rank, hit in enumerate(found.hits):
                x, y = _HITS_FROM + rank * _CELL, top + 0.35
                _draw_picture(axis, hit.jpeg, x, y, RIGHT if hit.right else WRONG)
                _draw_mark(axis, x, y, hit.right)
            top += _LINE
    # imshow sets limits of its own with each picture.
    axis.set_xlim(-0.1, width)
    axis.set_ylim(height, -0.3)
    axis.set_aspect("equal")
    return Picture(name, caption, png_bytes(figure))


def _draw_picture(axis: Axes, jpeg: bytes, x: float, y: float, colour: str) -> None:
    with Image.open(io.BytesIO(jpeg)) as picture:
        pixels = np.asarray(picture)
    axis.imshow(pixels, extent=(x, x + 1, y + 1, y), interpolation="antialiased")
    axis.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=3))


def _draw_mark(axis: Axes, x: float, y: float, right: bool) -> None:
    """Says right or wrong once more, for those who see no difference of red and green."""
    axis.text(
        x + 0.87,
        y + 0.86,
        "✓" if right else "✗",
        ha="center",
        va="center",
        fontsize=8,
        color="white",
        bbox={"boxstyle": "round,pad=0.12", "color": RIGHT if right else WRONG},
    )
