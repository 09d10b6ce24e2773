"""What is in a manifest, as a table of plain text."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.table import Table

from apparel_embed.common.text import plain_text
from apparel_embed.data.manifest import RESERVED_VERTICAL, SPLITS


def render_counts(table: pa.Table) -> str:
    """Returns items and pictures per vertical and split, in the manner of Markdown.

    Args:
      table: rows of a manifest.

    Returns:
      Lines without trailing blanks: of each split a column of items and one of rows; the last line
      is the sum. Rows are pictures, or garments where a picture shows several. Rows without an
      item, as those of split unlabelled may be, count as rows alone.
    """
    keys = ["vertical", "split"]
    # An empty item_id is none.
    items = pc.if_else(pc.equal(table["item_id"], ""), None, table["item_id"])
    counted = table.select(keys).append_column("item", items)
    counted = counted.group_by(keys).aggregate(
        [("item", "count_distinct", pc.CountOptions(mode="only_valid")), ("split", "count")]
    )
    cells = {
        (row["vertical"], row["split"]): (row["item_count_distinct"], row["split_count"])
        for row in counted.to_pylist()
    }
    splits = [name for name in SPLITS if any(key[1] == name for key in cells)]
    text = Table(box=box.MARKDOWN)
    text.add_column("vertical", no_wrap=True)
    for name in splits:
        text.add_column(f"{name} items", justify="right", no_wrap=True)
        text.add_column(f"{name} rows", justify="right", no_wrap=True)
    verticals = sorted({vertical for vertical, _ in cells})
    for vertical in (*verticals, RESERVED_VERTICAL):
        line = [vertical]
        for name in splits:
            here = [cells.get((one, name), (0, 0)) for one in verticals]
            if vertical != RESERVED_VERTICAL:
                here = [cells.get((vertical, name), (0, 0))]
            line += [f"{sum(counts):,}" for counts in zip(*here)]
        text.add_row(*line)
    return plain_text(text)
