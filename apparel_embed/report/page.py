"""The parts of a page, and rendering to HTML in which all user input is escaped."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      caption: what it shows, and how many queries or images it is based on.
      header: names of the columns.
      rows: cells as shown; the first cell of a row is its name.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, embedded in the page and stored as a file next to it.

    Attributes:
      name: name of the file, without its suffix.
      caption: what it shows, and how many queries or images it is based on.
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
      name: a short name of letters, digits and "-", used as the section's anchor.
      title: its heading.
      caption: its subject, or the reason why it is empty.
      parts: parts in display order, of kinds that the page's template supports.
    """

    name: str
    title: str
    caption: str
    parts: tuple[Any, ...] = ()


def render(template: str, **values: Any) -> str:
    """Returns a self-contained page that needs no other file, network or script.

    Args:
      template: a file in apparel_embed/report/templates.
      **values: values of the template's variables.
    """
    environment = Environment(
        loader=PackageLoader("apparel_embed.report"),
        # Names of verticals and items come from the user and must not become markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template(template).render(values)


def _data_uri(content: bytes, image_type: str) -> str:
    return f"data:image/{image_type};base64,{base64.b64encode(content).decode('ascii')}"
