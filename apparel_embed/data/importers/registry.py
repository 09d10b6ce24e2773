"""The dataset layouts that can be imported; a new one takes one module and one line here."""

from __future__ import annotations

from apparel_embed.data.importers import (
    deepfashion2,
    deepfashion_consumer_to_shop,
    deepfashion_in_shop,
    folders,
    stanford_online_products,
    street2shop,
    tables,
)
from apparel_embed.data.importers.layout import Format

FORMATS: dict[str, Format] = {
    "deepfashion_in_shop": deepfashion_in_shop.FORMAT,
    "deepfashion_consumer_to_shop": deepfashion_consumer_to_shop.FORMAT,
    "deepfashion2": deepfashion2.FORMAT,
    "street2shop": street2shop.FORMAT,
    "stanford_online_products": stanford_online_products.FORMAT,
    "folders": folders.FORMAT,
    "table": tables.FORMAT,
}
