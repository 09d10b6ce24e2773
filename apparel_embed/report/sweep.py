"""The curve of R@1 against group size, as a figure and as a section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import NullLocator

from apparel_embed.common.files import read_json
from apparel_embed.common.text import counted
from apparel_embed.report.drawing import interval_arms, model_style, new_figure, png_bytes
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Section
from apparel_embed.store.names import SWEEP

SWEEP_FILE = "sweep.json"
CURVE_FILE = "curve.png"
_NAMES = {
    "triplet": ("combined", "triplet model of a group"),
    "unified": ("unified", "student of the group's specialists"),
}
# Shifts the points of the two models, so that their intervals do not cover each other.
_SHIFT = 1.03


def sweep_section(inputs: ReportInputs) -> Section:
    """Returns the section with the curve of group sizes, empty if the run has none."""
    name, title = "curve", "How many verticals can share a model"
    stage = inputs.stages.get(SWEEP)
    if stage is None:
        return Section(
            name, title, "Not yet measured: run tools/sweep_group_size.py, then evaluate.py."
        )
    sweep = read_json(stage.directory / SWEEP_FILE)
    least = min(row["queries"] for row in sweep["rows"])
    model = stage.flags["specialist"]["model"]
    caption = (
        f"R@1 within the vertical on split {sweep['split']}, mean over "
        f"{counted(sweep['verticals'], 'vertical')}, {counted(least, 'query', 'queries')} at each "
        "size, with 95 % intervals over items; dots are single repeats (a seed and a partition of "
        f"the verticals). Seeds: {', '.join(map(str, sweep['seeds']))}. Models of the sweep: "
        f"{model['backbone']}, images of {model['image_size']} pixels, {model['embedding_dim']} "
        "dimensions."
    )
    return Section(name, title, "", (Figure("curve", caption, draw_curve(sweep)),))


def draw_curve(sweep: Mapping[str, Any]) -> bytes:
    """Returns R@1 within the vertical against the mean number of verticals per model, as PNG.

    Args:
      sweep: the content of `sweep.json`.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    sizes = sorted({row["group_size"] for row in sweep["rows"]})
    for number, (name, (style, label)) in enumerate(_NAMES.items()):
        rows = [row for row in sweep["rows"] if row["model"] == name]
        if not rows:
            continue
        colour, marker = model_style(style)
        shift = _SHIFT ** (1 if number else -1)
        places = [row["group_size"] * shift for row in rows]
        means = [row["r_at_1"] for row in rows]
        arms = interval_arms(rows)
        axes.errorbar(places, means, arms, color=colour, marker=marker, capsize=3, label=label)
        for place, row in zip(places, rows):
            repeats = row["repeats"]
            axes.plot([place * shift] * len(repeats), repeats, ".", color=colour, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{round(size, 2):g}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("verticals that share a model, mean over groups")
    axes.set_ylabel("R@1 within the vertical, mean over verticals")
    axes.grid(alpha=0.3)
    axes.legend()
    return png_bytes(figure)
