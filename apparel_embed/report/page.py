"""What a page is made of, and HTML from it in which whatever comes from the user is text."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      caption: what it shows, and how many queries or images stand behind it.
      header: names of the columns.
      rows: cells as they are shown; the first of a row is its name.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, embedded in the page and a file beside it.

    Attributes:
      name: of the file, without its suffix.
      caption: what it shows, and how many queries or images stand behind it.
      png: the file's content.
    """

    kind: ClassVar[str] = "figure"
    name: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
      name: short, of letters, digits and "-": the anchor of the section.
      title: its heading.
      caption: what it is about, or why it is empty.
      parts: in the order shown, of kinds that the page's template knows.
    """

    name: str
    title: str
    caption: str
    parts: tuple[Any, ...] = ()


def render(template: str, **values: Any) -> str:
    """Returns a page that needs no other file, network or script.

    Args:
      template: a file in apparel_embed/report/templates.
      **values: what the template names.
    """
    environment = Environment(
        loader=PackageLoader("apparel_embed.report"),
        # Names of verticals and items are the user's: nothing of them may become markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template(template).render(values)


def _data_uri(content: bytes, image_type: str) -> str:
    return f"data:image/{image_type};base64,{base64.b64encode(content).decode('ascii')}"
