"""HTML from templates, in which whatever comes from the user is text."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


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
    return environment.get_template(template).render(values)
