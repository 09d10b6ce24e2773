"""The search for the shell: a file in, a table out."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import plain_text
from apparel_embed.data.pictures import RejectedPicture
from apparel_embed.search.searcher import Found, NoGarment, Searcher, UnknownVertical, parse_box


def search_file(
    searcher: Searcher,
    path: Path,
    k: int,
    box_text: str = "",
    vertical: str | None = None,
    all_verticals: bool | None = None,
) -> Found:
    """Searches by an image file as `Searcher.search_bytes` does; the box is that of `parse_box`.

    Raises:
      UserError: no usable image, box or vertical.
    """
    try:
        return searcher.search_bytes(
            path.read_bytes(), k, parse_box(box_text), vertical, all_verticals
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (RejectedPicture, NoGarment) as error:
        raise UserError(f"{path}: {error}") from error
    except UnknownVertical as error:
        raise UserError(f"--vertical: {error}") from error
    except ValueError as error:
        raise UserError(f"--box={box_text}: {error}") from error


def table_of(found: Found) -> str:
    """Returns the hits as text, nearest first."""
    table = Table(box=box.SIMPLE)
    for heading in ("", "item", "vertical", "distance", "picture"):
        table.add_column(heading, justify="right" if heading in ("", "distance") else "left")
    for place, hit in enumerate(found.hits, 1):
        one, distance = hit.picture, f"{hit.distance:.3f}"
        table.add_row(str(place), one.item, one.vertical, distance, one.picture)
    where = found.vertical or "all verticals"
    times = ", ".join(f"{step} {1000 * value:.0f} ms" for step, value in found.seconds.items())
    return plain_text(table, f"in {where} ({found.why}); {times}")
