"""What the page about a dataset is made of: findings, bars and contact sheets, without any HTML."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Union

from apparel_embed.data.inspection.sheets import CELL
from apparel_embed.report.parts import SectionOf, Table


@dataclasses.dataclass(frozen=True)
class Bars:
    """Counts in classes, drawn as bars.

    Attributes:
      caption: what it shows.
      header: name of the classes, then of each series.
      rows: name of a class, and for each series the count and the length of its bar, 0 to 100.
    """

    kind: ClassVar[str] = "bars"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]


@dataclasses.dataclass(frozen=True)
class PairPicture:
    """One of two pictures that do not go together.

    Attributes:
      item: its id.
      place: row, vertical and split.
      image: as in the manifest.
      uri: the picture, as a data URI.
    """

    item: str
    place: str
    image: str
    uri: str


@dataclasses.dataclass(frozen=True)
class PairPictures:
    """Two pictures that do not go together.

    Attributes:
      pictures: both.
      detail: how far they are apart.
    """

    pictures: tuple[PairPicture, PairPicture]
    detail: str


@dataclasses.dataclass(frozen=True)
class Found:
    """A finding as it is shown.

    Attributes:
      code: its kind.
      severity: how bad.
      what: the sentence.
      advice: what to do.
      example: a row in words, or "".
      pairs: some of its pairs.
      listed: its first rows; None if it is not about rows.
      unlisted: how many rows more there are.
    """

    kind: ClassVar[str] = "finding"
    code: str
    severity: str
    what: str
    advice: str
    example: str
    pairs: tuple[PairPictures, ...]
    listed: Table | None
    unlisted: int


@dataclasses.dataclass(frozen=True)
class SheetPicture:
    """A contact sheet as it is shown.

    Attributes:
      vertical: its name.
      caption: out of how many items it was drawn.
      uri: the sheet, as a data URI.
      cell: height of a line in pixels.
      labels: of each line the item's id and what there is of it.
    """

    kind: ClassVar[str] = "sheet"
    cell: ClassVar[int] = CELL
    vertical: str
    caption: str
    uri: str
    labels: tuple[tuple[str, str], ...]


InspectionPart = Union[Table, Bars, Found, SheetPicture]


class InspectionSection(SectionOf[InspectionPart]):
    """A section of the page."""
