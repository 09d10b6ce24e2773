"""A dataset layout with its own setting: a text file of `vertical item image split`."""

import dataclasses

import pyarrow as pa

from apparel_embed.common.settings import setting
from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.rows import SOURCE_FILE, SOURCE_ROW, Rows


@dataclasses.dataclass(frozen=True)
class ListingOptions(LayoutOptions):
    listing: str = setting("listing.txt", "--format=listing: name of the file below --root")


def convert(root, options):
    rows = [line.split() for line in (root / options.listing).read_text("utf-8").splitlines()]
    names = ("vertical", "item_id", "image", "split")
    columns = dict(zip(names, map(list, zip(*rows))))
    columns[SOURCE_FILE] = [options.listing] * len(rows)
    columns[SOURCE_ROW] = list(range(1, len(rows) + 1))
    return Rows(pa.table(columns), root, {"images": len(rows)})


FORMAT = Format(convert, "a line per image in a text file", options=ListingOptions)
