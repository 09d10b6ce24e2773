"""A folder per item in a folder per vertical: `<vertical>/<item>/<image>`.

If the vertical is given, `<item>/<image>`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.image_files import LeftOut, images_below
from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.rows import SOURCE_FILE, SOURCE_ROW, Rows


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per image, with items and verticals from the folder names.

    Items with the same name in two verticals are different: their ids begin with the vertical.
    Hidden files, files without an image extension, and images outside item folders are left out
    and counted.

    Raises:
      UserError: a folder cannot be read, a name is not UTF-8, or no image is found.
    """
    left_out = LeftOut()
    rows: list[tuple[str, str, str]] = []
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for parts in sorted(path.split("/") for path in images_below(root, left_out)):
        image, vertical = "/".join(parts), options.vertical or parts[0]
        if len(parts) != (2 if options.vertical else 3):
            left_out["images outside item folders"].append(image)
            continue
        rows.append((image, parts[-2], vertical))
        homes[parts[-2]].add(vertical)
    notes = left_out.notes()
    if not rows:
        layout = "<item>/<image>"
        if not options.vertical:
            layout = f"<vertical>/{layout} (if they are {layout}, set --vertical)"
        raise UserError("; ".join([f"{root}: found no images as {layout}", *notes]))
    ids = [f"{home}/{name}" if len(homes[name]) > 1 else name for _, name, home in rows]
    shared = sum(len(verticals) > 1 for verticals in homes.values())
    if shared:
        example = next(item for item, (_, name, _) in zip(ids, rows) if item != name)
        notes += (
            f"item names found in several verticals: {shared:,}; they are different items, and "
            f"their ids begin with the vertical (e.g. {example})",
        )
    images = [image for image, _, _ in rows]
    columns = {
        "image": images,
        "item_id": ids,
        "vertical": [vertical for _, _, vertical in rows],
        SOURCE_FILE: images,
        SOURCE_ROW: pa.nulls(len(rows), pa.int64()),
    }
    counts = {"images": len(rows), "items": len(set(ids))}
    return Rows(pa.table(columns), root, counts, notes)


FORMAT = Format(convert, "<vertical>/<item>/<image>")
