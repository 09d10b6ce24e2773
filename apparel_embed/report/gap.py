"""The gap between models: recall with intervals per vertical, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from apparel_embed.common.text import counted
from apparel_embed.evaluation.protocol import (
    ALL,
    LEAST_ITEMS,
    MERGED,
    ROUTED,
    SCOPES,
    SERVED,
    WITHIN,
)
from apparel_embed.evaluation.roles import model_to_deploy
from apparel_embed.evaluation.table import DASH, signed_interval, what_is_routed, with_interval
from apparel_embed.report.drawing import interval_arms, literal, model_style, new_figure, png_bytes
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Section, Table

_Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]
# The most verticals drawn; matplotlib draws at most 65,536 pixels, and nobody reads that many.
_MOST_DRAWN = 100
_SHARES = (("R@5", "r_at_5"), ("R@10", "r_at_10"), ("R@20", "r_at_20"), ("mAP@R", "map_at_r"))
_WHERE = {
    WITHIN: "searching the gallery of the query's vertical (within)",
    MERGED: "searching the gallery of all verticals (merged)",
}


def gap_section(inputs: ReportInputs) -> Section:
    """Returns the section with the tables and the figure of the gap between models."""
    rows = {(row["model"], row["scope"], row["vertical"]): row for row in inputs.summary["rows"]}
    verticals = sorted({key[2] for key in rows} - {ALL})
    parts: list[Table | Figure] = [_mean_table(rows, inputs.models)]
    parts.append(_figure(rows, inputs.models, verticals))
    parts += [_vertical_table(rows, inputs.models, verticals, scope) for scope in SCOPES]
    parts += _comparisons(inputs.summary["comparisons"])
    parts += [_routing(rows, one) for one in inputs.summary.get("routing", ())]
    model, why = model_to_deploy(inputs.summary["rows"], inputs.summary["comparisons"])
    return Section(
        "gap",
        "The gap between models",
        (f"Deploy {model}: {why}. " if model else "")
        + "R@k is the share of queries with an image of the same item among the k nearest gallery "
        "images, excluding the query's own image. Only queries that have a match in the "
        "gallery count. Intervals in brackets are 95 %, from a bootstrap over items. ALL is the "
        f"mean over verticals; one with queries of fewer than {LEAST_ITEMS} items is marked * and "
        "does not count, unless all are that small. Chance is R@1 of drawing a gallery image at "
        "random. Models with a space per vertical cannot be searched merged.",
        tuple(parts),
    )


def share(value: float | None) -> str:
    """Returns a share with three decimals, or a dash if there is none."""
    return DASH if value is None else f"{value:.3f}"


def _behind(rows: _Rows, models: Sequence[str], scope: str) -> str:
    """Returns a phrase with the numbers of queries and gallery images behind a scope's means."""
    of_scope = [rows[key] for key in ((model, scope, ALL) for model in models) if key in rows]
    if not of_scope:
        return "no model has one space for all verticals"
    # Every model of an evaluation answers the same queries.
    queries = counted(of_scope[0]["queries"], "query", "queries")
    return f"{queries} and {counted(of_scope[0]['gallery'], 'gallery image')}"


def _mean_table(rows: _Rows, models: Sequence[str]) -> Table:
    body = []
    for model in models:
        within, merged = (rows.get((model, scope, ALL)) for scope in SCOPES)
        shares = [DASH if within is None else share(within[field]) for _, field in _SHARES]
        body.append((model, with_interval(within), *shares, with_interval(merged)))
    return Table(
        f"Means over verticals. Within: {_behind(rows, models, WITHIN)}; merged: "
        f"{_behind(rows, models, MERGED)}. R@5 to mAP@R are within.",
        ("model", "R@1 within", *(name for name, _ in _SHARES), "R@1 merged"),
        tuple(body),
    )


def _vertical_table(
    rows: _Rows, models: Sequence[str], verticals: Sequence[str], scope: str
) -> Table:
    shown = [model for model in models if any(key[:2] == (model, scope) for key in rows)]
    body = []
    for vertical in (*verticals, ALL):
        of_models = [rows.get((model, scope, vertical)) for model in shown]
        known = next((row for row in of_models if row), None)
        counts = (f"{known[name]:,}" if known else DASH for name in ("queries", "items", "gallery"))
        name = vertical if not known or known["in_all"] else f"{vertical} *"
        chance = share(known["chance"]) if known else DASH
        body.append((name, *counts, chance, *map(with_interval, of_models)))
    return Table(
        f"R@1 of each vertical, {_WHERE[scope]}: {_behind(rows, models, scope)}.",
        ("vertical", "queries", "items", "gallery", "chance", *shown),
        tuple(body),
    )


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not comparisons:
        return []
    body = tuple(
        (
            f"{entry['model']} - {entry['minus']}",
            entry["vertical"],
            f"{entry['queries']:,}",
            signed_interval(entry),
            "clear" if entry["is_clear"] else "may be chance",
        )
        for entry in comparisons
    )
    most = max(entry["queries"] for entry in comparisons)
    caption = (
        "Differences in R@1 within, paired over the same "
        f"{counted(most, 'query', 'queries')}. A difference is clear if its 95 % interval "
        "excludes zero; about one in twenty chance differences also looks clear."
    )
    return [Table(caption, ("models", "vertical", "queries", "difference", ""), body)]


def _routing(rows: _Rows, routing: Mapping[str, Any]) -> Table:
    model, accuracies = routing["model"], {row["vertical"]: row for row in routing["verticals"]}
    scopes = (SERVED, MERGED, ROUTED, WITHIN)
    body = []
    for vertical in (*accuracies, ALL):
        accuracy = routing if vertical == ALL else accuracies[vertical]
        low, high = accuracy["accuracy_low"], accuracy["accuracy_high"]
        body.append(
            (
                vertical,
                f"{accuracy['queries']:,}",
                f"{accuracy['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
                *(with_interval(rows[model, scope, vertical]) for scope in scopes),
            )
        )
    return Table(
        f"Searches with {model} as served: {what_is_routed(routing)}; in all verticals "
        "(merged); always in the one that its vertical head predicts for the query (routed); and "
        "in the query's true vertical (within). Difference in R@1, served - merged: "
        f"{signed_interval(routing['served_difference'])}, routed - within: "
        f"{signed_interval(routing['r_at_1_difference'])}, paired over "
        f"{counted(routing['queries'], 'query', 'queries')}.",
        ("vertical", "queries", "accuracy of the head", *(f"R@1 {scope}" for scope in scopes)),
        tuple(body),
    )


def _figure(rows: _Rows, models: Sequence[str], verticals: Sequence[str]) -> Figure:
    # Every model of an evaluation answers the same queries.
    queries = {vertical: row["queries"] for (_, _, vertical), row in rows.items()}
    shown = sorted(verticals, key=lambda name: -queries[name])[:_MOST_DRAWN]
    lines = (ALL, *sorted(shown))
    scopes = [scope for scope in SCOPES if any(key[1] == scope for key in rows)]
    height = 1.3 + len(lines) * max(0.4, 0.14 * len(models))
    figure = new_figure(5.6 * len(scopes), height)
    axes = figure.subplots(1, len(scopes), sharex=True, sharey=True, squeeze=False)[0]
    for axis, scope in zip(axes, scopes):
        _draw_scope(axis, rows, models, lines, scope)
        axis.set_title(f"R@1 {scope}", fontsize=11)
        axis.set_xlabel("R@1, 95 % interval")
    axes[0].set_yticks(range(len(lines)), [literal(name) for name in lines])
    axes[0].set_ylim(len(lines) - 0.5, -0.5)
    axes[0].set_xlim(*_limits(rows))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(6, len(labels)), frameon=False
    )
    behind = "; ".join(f"{scope}, {_behind(rows, models, scope)}" for scope in scopes)
    caption = (
        f"R@1 of each model with 95 % intervals, mean (ALL) and per vertical: {behind}. "
        "Verticals without an answered query have no dots."
    )
    if len(shown) < len(verticals):
        caption += (
            f" Only the {len(shown)} verticals with the most queries are drawn; the other "
            f"{len(verticals) - len(shown):,} are in the tables."
        )
    return Figure("gap", caption, png_bytes(figure))


def _draw_scope(
    axis: Axes, rows: _Rows, models: Sequence[str], lines: Sequence[str], scope: str
) -> None:
    for line in range(0, len(lines), 2):
        axis.axhspan(line - 0.5, line + 0.5, color="#f2f2f2", zorder=0)
    for number, model in enumerate(models):
        found = [
            (line, row)
            for line, row in enumerate(rows.get((model, scope, name)) for name in lines)
            if row and row["r_at_1"] is not None
        ]
        if not found:
            continue
        colour, marker = model_style(model)
        offset = (number - (len(models) - 1) / 2) * 0.8 / len(models)
        values = [row["r_at_1"] for _, row in found]
        axis.errorbar(
            values,
            [line + offset for line, _ in found],
            xerr=interval_arms([row for _, row in found]),
            fmt=marker,
            color=colour,
            markersize=5,
            linewidth=1.4,
            label=model,
        )
    axis.grid(axis="x", color="#d0d0d0", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _limits(rows: _Rows) -> tuple[float, float]:
    """Returns axis limits: all intervals, extended to multiples of 0.1, plus a margin."""
    known = [row for row in rows.values() if row["r_at_1"] is not None]
    low = math.floor(min(row["r_at_1_low"] for row in known) * 10) / 10
    high = math.ceil(max(row["r_at_1_high"] for row in known) * 10) / 10
    return max(0.0, low) - 0.02, min(1.0, high) + 0.02
