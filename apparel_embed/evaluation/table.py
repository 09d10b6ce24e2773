"""Results of evaluations and of the choice of teachers as plain-text tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from apparel_embed.common.text import counted, markdown_table, plain_text
from apparel_embed.evaluation.protocol import ALL, LEAST_ITEMS, MERGED, ROUTED, SERVED, WITHIN
from apparel_embed.evaluation.roles import UNIFIED, ordered_models

TEACHER_HEADER = (
    "vertical", "taught by", "val queries", "items", "R@1 of each candidate, split val",
)  # fmt: skip
DASH = "-"
_MOST_RUNS_SHOWN = 5
_WIDTH = 120

_Rows = dict[tuple[str, str, str], Mapping[str, Any]]


def render_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns two tables: metrics and cost of each model, and R@1 within each vertical.

    The text is Markdown, and ASCII if all names are, so it can be pasted anywhere.

    Args:
      rows: `rows` of `summary.json`; models and verticals may be missing.
    """
    by_key = _by_key(rows)
    models = ordered_models(row["model"] for row in rows)
    text = plain_text(
        "Mean over verticals; 95 % intervals over items in brackets; pooled: mean over queries",
        _gap_table(by_key, models),
        "R@1 within each vertical; chance is R@1 of drawing a gallery image at random",
        _vertical_table(by_key, models),
        *_small_verticals(by_key, models),
        width=_WIDTH,
    )
    return f"{text}\n"


def render_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Returns one line per pair of models: the difference of their mean R@1 within the vertical.

    Args:
      comparisons: `comparisons` of `summary.json`; those of single verticals are left out.

    Returns:
      Lines such as `unified - specialists: -0.012 [-0.031, +0.008], may be chance`.
    """
    return "\n".join(
        f"{entry['model']} - {entry['minus']}: {signed_interval(entry)}, "
        + ("clear" if entry["is_clear"] else "may be chance")
        for entry in comparisons
        if entry["vertical"] == ALL
    )


def render_routing(summary: Mapping[str, Any]) -> list[str]:
    """Returns lines on the effect of routing by a vertical head; none if there is no head.

    Args:
      summary: the content of `summary.json`.
    """
    lines = []
    for routing in summary.get("routing", []):
        by_key, model = _by_key(summary["rows"]), routing["model"]
        served, routed = (by_key[model, scope, ALL] for scope in (SERVED, ROUTED))
        lines += [
            "",
            f"{model}, searching as served, {what_is_routed(routing)}: R@1 "
            f"{with_interval(served)}, {signed_interval(routing['served_difference'])} against "
            "all verticals",
            f"{model}, always searching the vertical that its head predicts: R@1 "
            f"{with_interval(routed)}, {signed_interval(routing['r_at_1_difference'])} against "
            f"the known vertical; the head is right for {routing['accuracy']:.3f} "
            f"[{routing['accuracy_low']:.3f}, {routing['accuracy_high']:.3f}] of queries",
        ]
    return lines


def render_absent(absent: Mapping[str, Any]) -> list[str]:
    """Returns a line for each measured level: the shares of queries answered "same item".

    Args:
      absent: the content of `absent.json`.
    """
    lines = [
        f"{UNIFIED}, {row['scope']}: answers 'same item' to {absent_share(one)} of queries whose "
        f"item was removed (promised: at most {one['promised']:.0%}), and correctly to "
        f"{_share(one, 'accepted_and_right')} of those whose item is present"
        f"{absent_parts(row, one)}"
        for row in absent["rows"]
        for one in row["levels"]
        if row["vertical"] == ALL and one["false_accepts"] is not None
    ]
    few = f"{UNIFIED}: split val has too few items for verdicts"
    return ["", *(lines or [few])]


def absent_parts(row: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Returns how many verticals a level of `absent.json` is measured in, empty if in all."""
    if one["measured_parts"] == row["parts"] or row["parts"] == 1:
        return ""
    return f" (in {one['measured_parts']} of {row['parts']} verticals)"


def absent_share(one: Mapping[str, Any]) -> str:
    """Returns the share of absent queries accepted at a level of `absent.json`, with interval."""
    if one["false_accepts"] is None:
        return DASH
    low, high = one["false_accepts_low"], one["false_accepts_high"]
    return f"{one['false_accepts']:.3f} [{low:.3f}, {high:.3f}]"


def what_is_routed(routing: Mapping[str, Any]) -> str:
    """Returns a phrase on which queries search the predicted vertical in production.

    Args:
      routing: an entry of `routing` in `summary.json`.
    """
    if routing["routing_confidence"] is None:
        return "always in all verticals"
    others = routing["routed"] < routing["queries"]
    return (
        f"{routing['routed']:,} of {counted(routing['queries'], 'query', 'queries')} in the "
        f"predicted vertical, with a confidence of at least {routing['routing_confidence']:.3f}"
        + (", and the others in all verticals" if others else "")
    )


def render_runs(record: Mapping[str, Any]) -> str:
    """Returns the results of several runs: the runs, a table of models, and differences.

    Args:
      record: the content of `comparison.json`.
    """
    runs, differences = record["runs"], record["comparisons"]
    datasets = list(dict.fromkeys(run["dataset"] for run in runs))
    differ = "trainings and data" if len(datasets) > 1 else "trainings"
    left_out = ", ".join(record["rows"][0]["left_out"])
    text = plain_text(
        f"{len(runs)} runs, split {record['split']}",
        *(f"  {run['run']} (dataset {1 + datasets.index(run['dataset'])})" for run in runs),
        "\nMean over verticals and datasets, runs of one dataset averaged; 95 % intervals over "
        "items in brackets",
        *([f"Left out of the mean, with too few items in a run: {left_out}"] if left_out else []),
        f"std of runs: standard deviation of single runs, whose {differ} differ",
        _runs_table(record["rows"]),
        *(["Differences in R@1 within, paired over the same queries\n"] if differences else []),
        *(
            f"{render_comparisons([entry])}; single runs {_each(entry['difference_runs'], _signed)}"
            for entry in differences
        ),
        width=_WIDTH,
    )
    return f"{text}\n"


def render_teachers(result: Mapping[str, Any]) -> str:
    """Returns a table of the candidate that teaches each vertical.

    Args:
      result: the result of a targets stage.
    """
    rows = teacher_rows(result["choices"])
    return plain_text(markdown_table(TEACHER_HEADER, rows, left=len(TEACHER_HEADER)))


def teacher_rows(choices: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a row of text for each vertical, with the columns of `TEACHER_HEADER`.

    Args:
      choices: `choices` in the result of a targets stage.
    """
    return [
        (
            choice["vertical"],
            choice["chosen"],
            str(choice["queries"]),
            str(choice["items"]),
            ", ".join(f"{one['name']} {one['r_at_1']:.3f}" for one in choice["candidates"])
            or "no query has an answer",
        )
        for choice in choices
    ]


def human_count(count: int) -> str:
    """Returns a count with three digits: `950`, `12.3 k`, `1.20 M`, `1.50 G`."""
    if count < 1000:
        return str(count)
    scaled = float(count)
    for unit in ("k", "M", "G"):
        scaled /= 1000
        # 999.5 would print as 1000.
        if scaled < 999.5 or unit == "G":
            break
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {unit}"


def _by_key(rows: Sequence[Mapping[str, Any]]) -> _Rows:
    return {(row["model"], row["scope"], row["vertical"]): row for row in rows}


def _gap_table(rows: _Rows, models: Sequence[str]) -> Table:
    header = ("model", "R@1 within", "pooled", "R@5", "mAP@R", "R@1 merged", "parameters", "models")
    lines = []
    for model in models:
        within = rows.get((model, WITHIN, ALL))
        merged = rows.get((model, MERGED, ALL))
        cost = within or merged or next(row for key, row in rows.items() if key[0] == model)
        shares = (_share(within, field) for field in ("r_at_1_pooled", "r_at_5", "map_at_r"))
        counts = (human_count(cost["parameters"]), str(cost["models_to_deploy"]))
        lines.append((model, with_interval(within), *shares, _share(merged, "r_at_1"), *counts))
    return markdown_table(header, lines)


def _vertical_table(rows: _Rows, models: Sequence[str]) -> Table:
    verticals = sorted({key[2] for key in rows if key[1] == WITHIN} - {ALL})
    lines = []
    for vertical in (*verticals, ALL):
        of_models = [rows.get((model, WITHIN, vertical)) for model in models]
        found = [row for row in of_models if row]
        # Show all query counts, so that models with different queries do not look comparable.
        queries = " / ".join(map(str, sorted({row["queries"] for row in found}))) or DASH
        lines.append(
            (
                vertical if not found or found[0]["in_all"] else f"{vertical} *",
                queries,
                str(found[0]["items"]) if found else DASH,
                _share(found[0] if found else None, "chance"),
                *(_share(row, "r_at_1") for row in of_models),
            )
        )
    return markdown_table(("vertical", "queries", "items", "chance", *models), lines)


def _small_verticals(rows: _Rows, models: Sequence[str]) -> list[str]:
    """Returns a note on ALL including verticals with too few items; none if all verticals count."""
    own = [row for key, row in rows.items() if key[1] == WITHIN and key[2] != ALL]
    answered = [row for row in own if row["queries"]]
    if all(row["in_all"] for row in answered):
        return []
    means = [
        f"{model} {np.mean(recalls):.3f}"
        for model in models
        if (recalls := [row["r_at_1"] for row in answered if row["model"] == model])
    ]
    return [
        f"* fewer than {LEAST_ITEMS} items: too few to judge, and not in ALL. "
        f"With these verticals ALL would be: {', '.join(means)}"
    ]


def _runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    header = ("model", "R@1 within", "std of runs", "single runs", "R@5", "mAP@R", "R@1 merged")
    by_key = {(row["model"], row["scope"]): row for row in rows}
    lines = []
    for model in ordered_models(row["model"] for row in rows):
        within, merged = by_key[model, WITHIN], by_key.get((model, MERGED))
        lines.append(
            (
                model,
                with_interval(within),
                _share(within, "r_at_1_std"),
                _each(within["r_at_1_runs"], "{:.3f}".format),
                _share(within, "r_at_5"),
                _share(within, "map_at_r"),
                _share(merged, "r_at_1"),
            )
        )
    return markdown_table(header, lines)


def _share(row: Mapping[str, Any] | None, field: str) -> str:
    return DASH if row is None or row[field] is None else f"{row[field]:.3f}"


def _signed(value: float) -> str:
    # Adding 0 turns -0 into 0.
    return f"{round(value, 3) + 0.0:+.3f}"


def signed_interval(entry: Mapping[str, float]) -> str:
    """Returns a signed difference and its interval: fields `difference`, `low` and `high`."""
    return f"{_signed(entry['difference'])} [{_signed(entry['low'])}, {_signed(entry['high'])}]"


def _each(values: Sequence[float], text_of: Callable[[float], str]) -> str:
    """Returns the value of every run, or their range if there are many runs."""
    if len(values) > _MOST_RUNS_SHOWN:
        return f"{text_of(min(values))} .. {text_of(max(values))}"
    return " ".join(map(text_of, values))


def with_interval(row: Mapping[str, Any] | None) -> str:
    """Returns R@1 of a row with its interval, or a dash if there is none."""
    if row is None or row["r_at_1"] is None:
        return DASH
    return f"{row['r_at_1']:.3f} [{row['r_at_1_low']:.3f}, {row['r_at_1_high']:.3f}]"
