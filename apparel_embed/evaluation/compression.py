"""What was found of smaller models and embeddings, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apparel_embed.evaluation.table import DASH, signed_interval, with_interval

COMPRESSION_FILE = "compression.json"


def render_compression(record: Mapping[str, Any]) -> str:
    """Returns the content of `compression.json` as a table of Markdown."""
    lines = [
        f"R@1 within the vertical on split {record['split']}, mean over verticals; 95 % intervals "
        "over items in brackets; differences are paired over the same queries",
        "",
        "| what | kind | bytes | R@1 | against float32 |",
        "|---|---|---:|---:|---:|",
    ]
    for row in record["rows"]:
        cells = (row["what"], row["kind"], f"{row['bytes']:,}", *shares(row))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shares(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns R@1 of a row with its interval, and its difference to float32."""
    difference = DASH if row["kind"] == "float32" else signed_interval(row["difference"])
    return with_interval(row), difference
