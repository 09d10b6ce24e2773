"""The layouts of datasets that can be imported; a new one is one module and one line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers import (
    deepfashion2,
    deepfashion_consumer_to_shop,
    deepfashion_in_shop,
    folders,
    stanford_online_products,
    street2shop,
    table,
)
from apparel_embed.data.importers.derive import ERROR, SKIP
from apparel_embed.data.importers.imported import Imported


@dataclasses.dataclass(frozen=True)
class Format:
    """A layout.

    Attributes:
      convert: returns the rows found below a root, given the layout's options or None.
      layout: what is where, in a few words.
      published: counts that were published with the dataset, by the names that `convert` gives.
      missing: what becomes of rows without a picture unless the user says: "error" or "skip".
    """

    convert: Callable[[Path, Any], Imported]
    layout: str
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ERROR


def _benchmark(module: ModuleType, layout: str, missing: str = ERROR) -> Format:
    """Returns the layout of a published dataset from its module's `convert` and `PUBLISHED`."""
    return Format(module.convert, layout, module.PUBLISHED, missing)


FORMATS: Mapping[str, Format] = {
    "deepfashion_in_shop": _benchmark(deepfashion_in_shop, "Eval/list_eval_partition.txt, img/"),
    "deepfashion_consumer_to_shop": _benchmark(
        deepfashion_consumer_to_shop, "Eval/list_eval_partition.txt, img/"
    ),
    "deepfashion2": _benchmark(deepfashion2, "train/annos/, train/image/, validation/"),
    "street2shop": _benchmark(street2shop, "meta/json/, images/", missing=SKIP),
    "stanford_online_products": _benchmark(stanford_online_products, "Ebay_train.txt"),
    "folders": Format(folders.convert, "<vertical>/<item>/<picture>"),
    "table": Format(table.convert, "any table of pictures, or pictures with telling names"),
}


def format_of(name: str) -> Format:
    """Returns a layout by its name.

    Raises:
      UserError: there is none of this name.
    """
    if name not in FORMATS:
        raise UserError(f"--format={name} is not allowed; allowed: {', '.join(FORMATS)}")
    return FORMATS[name]
