"""Rows of a collection on a Milvus server, and filter conditions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.search.index import IndexedImage

FIELDS = tuple(field.name for field in dataclasses.fields(IndexedImage))
# In bytes.
LONGEST = {"image": 4_096, "item": 1_024, "vertical": 1_024, "content": 32}


def among(field: str, texts: Sequence[str], operator: str = "in") -> str:
    """Returns the condition that a field is one of some texts, which it quotes."""
    return f"{field} {operator} {json.dumps(list(texts), ensure_ascii=False)}"


def image_of(row: dict[str, Any]) -> IndexedImage:
    """Returns the image of a row."""
    return IndexedImage(**{name: row[name] for name in FIELDS})


def row_of(image: IndexedImage) -> dict[str, Any]:
    """Returns the row of an image, without its embedding.

    Raises:
      UserError: if a text is too long.
    """
    for name, most in LONGEST.items():
        length = len(getattr(image, name).encode("utf-8"))
        if length > most:
            raise UserError(
                f"{image.image[:200]}: {name} has {length} bytes; expected at most {most}"
            )
    return vars(image)
