"""Helpers shared by all figures: colours, literal text, and PNG files.

They use only matplotlib's object-oriented interface, which has no global state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from apparel_embed.evaluation.roles import (
    COMBINED,
    FROZEN,
    GROUPED,
    HISTOGRAM,
    SPECIALISTS,
    UNIFIED,
)
from apparel_embed.store.names import COMBINED_START

_DPI = 110
_LONGEST_NAME = 28
# Okabe and Ito's colours, distinguishable with any colour vision; the markers differ too.
_STYLES = {
    HISTOGRAM: ("#8c8c8c", "v"),
    FROZEN: ("#56b4e9", "^"),
    COMBINED_START: ("#b07800", "s"),
    COMBINED: ("#e69f00", "s"),
    SPECIALISTS: ("#009e73", "D"),
    GROUPED: ("#cc79a7", "P"),
    UNIFIED: ("#0072b2", "o"),
}
_OTHER_STYLE = ("#000000", "X")
_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#b0a000",
)  # fmt: skip
_MARKERS = "os^DvPX*"


def model_style(model: str) -> tuple[str, str]:
    """Returns colour and marker of a model, the same in every figure."""
    return _STYLES.get(model, _OTHER_STYLE)


def vertical_style(number: int) -> tuple[str, str]:
    """Returns colour and marker of a vertical by its number from 0; 64 are distinct."""
    return (
        _COLOURS[number % len(_COLOURS)],
        _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)],
    )


def interval_arms(rows: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Returns the lengths of error bars below and above R@1.

    Args:
      rows: each with `r_at_1`, `r_at_1_low` and `r_at_1_high`.
    """
    # Rounding errors may put an end of an interval on the wrong side of R@1.
    below = [max(0.0, row["r_at_1"] - row["r_at_1_low"]) for row in rows]
    above = [max(0.0, row["r_at_1_high"] - row["r_at_1"]) for row in rows]
    return below, above


def literal(text: str) -> str:
    """Returns text that matplotlib shows literally, truncated to the length of a label.

    A pair of dollar signs would be rendered as a formula, and a line break would spoil the layout.
    """
    text = " ".join(text.split())
    if len(text) > _LONGEST_NAME:
        text = text[: _LONGEST_NAME - 1] + "…"
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure with automatic layout; width and height are in inches."""
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def png_bytes(figure: Figure) -> bytes:
    """Returns a figure as PNG; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    # Omit the version of matplotlib, so that results do not depend on it.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
