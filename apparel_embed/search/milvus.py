"""What Milvus keeps of pictures and versions, and what it says, in terms of this package."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.search.version import Hit, IndexedPicture, IndexSettings, Version

FIELDS = tuple(field.name for field in dataclasses.fields(IndexedPicture))
# Milvus's own limit of a text.
_LONGEST_TEXT = 65_535
_LONGEST = {"picture": 4_096, "item": 1_024, "vertical": 1_024}
# Milvus wants a vector in every collection; that of versions needs none.
NO_VECTOR = [0.0, 0.0]


def quote(text: str) -> str:
    """Returns a text as a literal of Milvus's filter language, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def among(field: str, texts: Sequence[str], *, negated: bool = False) -> str:
    """Returns the condition that a field is one of some texts, or none; "" for none of no texts."""
    if negated and not texts:
        return ""
    return f"{field} {'not in' if negated else 'in'} [{', '.join(map(quote, texts))}]"


def excluded(hits: Sequence[Hit], by_item: bool) -> list[str]:
    """Returns the conditions that keep items away that were found."""
    items = [hit.picture.item for hit in hits if by_item and hit.picture.item]
    keys = [hit.picture.key for hit in hits if not (by_item and hit.picture.item)]
    return [among("item", items, negated=True), among("key", keys, negated=True)]


def check_file(path: Path) -> None:
    """Checks what Milvus Lite says nothing clear about.

    Raises:
      UserError: if it cannot be a file of this Milvus Lite.
    """
    if path.is_dir():
        raise UserError(
            f"{path}: is a directory, not a file of this Milvus Lite; an index made by another "
            "release is to be removed and built again"
        )
    if not re.fullmatch(r"[a-zA-Z0-9.\-_]+\.db", path.name):
        raise UserError(
            f"{path}: no name for the file of an index; allowed are a to z, 0 to 9, '.', '-' and "
            "'_', with '.db' at the end"
        )


@contextlib.contextmanager
def told(uri: str, hint: str = "") -> Iterator[None]:
    """Turns what Milvus raises into one line."""
    try:
        yield
    except MilvusException as error:
        reason = one_line(error.message)
        raise UserError(f"{uri}: {hint or 'the index fails'} ({reason})") from error


def version_of(text: str) -> Version:
    """Returns a version from the text that it is kept as."""
    about = json.loads(text)
    about["settings"] = IndexSettings(**about["settings"])
    about["verticals"] = tuple(about["verticals"])
    return Version(**about)


def picture_of(row: dict[str, Any]) -> IndexedPicture:
    """Returns the picture of a row."""
    return IndexedPicture(**{name: row[name] for name in FIELDS})


def hits_of(found: Sequence[Mapping[str, Any]]) -> list[Hit]:
    """Returns the hits of a search, of which Milvus gives squared distances."""
    return [
        Hit(picture_of({**one["entity"], "key": one["key"]}), max(one["distance"], 0.0) ** 0.5)
        for one in found
    ]


def row_of(picture: IndexedPicture) -> dict[str, Any]:
    """Returns the row of a picture.

    Raises:
      UserError: if a text is longer than Milvus keeps it.
    """
    row = {name: getattr(picture, name) for name in FIELDS}
    for name, most in _LONGEST.items():
        length = len(row[name].encode("utf-8"))
        if length > most:
            raise UserError(
                f"{row['picture'][:200]}: {name} has {length} bytes; allowed are {most}"
            )
    return row


def create_versions(client: MilvusClient, name: str) -> None:
    """Makes the collection of versions."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, max_length=64, is_primary=True)
    schema.add_field("about", DataType.VARCHAR, max_length=_LONGEST_TEXT)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=len(NO_VECTOR))
    index = client.prepare_index_params()
    index.add_index("unused", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)


def create_pictures(client: MilvusClient, version: Version) -> None:
    """Makes the collection of a version's pictures."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, max_length=32, is_primary=True)
    for name, longest in _LONGEST.items():
        schema.add_field(name, DataType.VARCHAR, max_length=longest)
    schema.add_field("record", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=version.dim)
    index = client.prepare_index_params()
    index.add_index(
        "embedding",
        index_type=version.settings.kind,
        metric_type="L2",
        params=version.settings.build_parameters(),
    )
    client.create_collection(version.collection, schema=schema, index_params=index)
