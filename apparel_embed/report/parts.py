"""What a report is made of: sections of tables, figures and rank lists, without any HTML."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar, Union


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      caption: what it shows, and how many queries or pictures stand behind it.
      header: names of the columns.
      rows: cells as they are shown; the first of a row is its name.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure, embedded in the page and a file beside it.

    Attributes:
      name: of the file, without its suffix.
      caption: what it shows, and how many queries or pictures stand behind it.
      png: the file's content.
    """

    kind: ClassVar[str] = "picture"
    name: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The figure as a data URI."""
        return data_uri(self.png, "png")


@dataclasses.dataclass(frozen=True)
class Hit:
    """A gallery picture that a query found.

    Attributes:
      jpeg: its thumbnail.
      item: its item id.
      right: whether it shows the query's item.
    """

    jpeg: bytes
    item: str
    right: bool

    @property
    def uri(self) -> str:
        """The thumbnail as a data URI."""
        return data_uri(self.jpeg, "jpeg")


@dataclasses.dataclass(frozen=True)
class RankList:
    """What one model found for a query.

    Attributes:
      model: its name.
      average_precision: at R, 0 to 1.
      hits: nearest first.
    """

    model: str
    average_precision: float
    hits: tuple[Hit, ...]


@dataclasses.dataclass(frozen=True)
class RankedQuery:
    """A query and what models found for it.

    Attributes:
      label: why it was chosen, e.g. "good".
      jpeg: its thumbnail.
      record: its record number.
      item: its item id.
      lists: one per model.
    """

    label: str
    jpeg: bytes
    record: int
    item: str
    lists: tuple[RankList, ...]

    @property
    def uri(self) -> str:
        """The thumbnail as a data URI."""
        return data_uri(self.jpeg, "jpeg")


@dataclasses.dataclass(frozen=True)
class RankLists:
    """The rank lists of one vertical, drawn by the page from thumbnails.

    Attributes:
      vertical: its name.
      caption: how many queries the shown were chosen from.
      queries: the chosen ones.
      picture: the same as a figure, which is written beside the page but not embedded.
    """

    kind: ClassVar[str] = "ranks"
    vertical: str
    caption: str
    queries: tuple[RankedQuery, ...]
    picture: Picture


Part = Union[Table, Picture, RankLists]
_Part = TypeVar("_Part")


@dataclasses.dataclass(frozen=True)
class SectionOf(Generic[_Part]):
    """A section of a page.

    Attributes:
      name: short, of letters, digits and "-": the anchor of the section.
      title: its heading.
      caption: what it is about, or why it is empty.
      parts: in the order shown.
    """

    name: str
    title: str
    caption: str
    parts: tuple[_Part, ...] = ()


class Section(SectionOf[Part]):
    """A section of the report."""

    def pictures(self) -> Iterator[Picture]:
        """Yields the figures that belong beside the page."""
        for part in self.parts:
            if isinstance(part, Picture):
                yield part
            elif isinstance(part, RankLists):
                yield part.picture


def data_uri(content: bytes, image_type: str) -> str:
    """Returns a picture as a data URI; `image_type` is "png" or "jpeg"."""
    return f"data:image/{image_type};base64,{base64.b64encode(content).decode('ascii')}"
