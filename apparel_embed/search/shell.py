"""Search from the command line: image files in, a table of hits per garment out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.table import Table

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import plain_text
from apparel_embed.data.images import RejectedImage
from apparel_embed.search.index import Hit
from apparel_embed.search.searcher import (
    Found,
    NoGarment,
    Photograph,
    Searcher,
    UnknownVertical,
    parse_box,
)

_Answer = TypeVar("_Answer")


def search_files(
    searcher: Searcher,
    paths: Sequence[Path],
    k: int,
    box_text: str = "",
    vertical: str | None = None,
    all_verticals: bool | None = None,
) -> Found:
    """Searches by image files; see `Searcher.search_bytes`, and `parse_box` for `box_text`.

    Raises:
      UserError: an image, the box or the vertical is invalid.
    """
    try:
        wanted = parse_box(box_text)
    except ValueError as error:
        raise UserError(f"--box={box_text}: {error}") from error
    return _run(
        paths, lambda encoded: searcher.search_bytes(encoded, k, wanted, vertical, all_verticals)
    )


def search_garments_of_file(
    searcher: Searcher, path: Path, k: int, all_verticals: bool | None = None
) -> Photograph:
    """Searches by every garment in a photograph's file; see `Searcher.detect`.

    Raises:
      UserError: the image is unusable, or the model has no detector.
    """
    return _run([path], lambda encoded: searcher.detect(encoded[0], k, bool(all_verticals)))


def _run(paths: Sequence[Path], call: Callable[[Sequence[bytes]], _Answer]) -> _Answer:
    try:
        return call([path.read_bytes() for path in paths])
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    except (RejectedImage, NoGarment) as error:
        raise UserError(f"{', '.join(map(str, paths))}: {error}") from error
    except UnknownVertical as error:
        raise UserError(f"--vertical: {error}") from error


def table_of(found: Found) -> str:
    """Returns the hits as text, nearest first."""
    return plain_text(_hits(found.hits), f"{_where(found)}; {_times(found.seconds)}")


def tables_of(photograph: Photograph) -> str:
    """Returns the hits of every garment as text."""
    shown: list[Table | str] = []
    for number, garment in enumerate(photograph.garments, 1):
        edges = ",".join(f"{edge:.0f}" for edge in garment.box)
        heading = f"garment {number}: {garment.vertical}, {garment.score:.0%}, --box={edges}"
        if garment.found:
            shown += [f"{heading}; {_where(garment.found)}", _hits(garment.found.hits)]
    if not shown:
        shown = [
            "no garment found; pass a box with --box, or search the whole image without --detect"
        ]
    return plain_text(*shown, _times(photograph.seconds))


def _where(found: Found) -> str:
    where = f"in {found.vertical or 'all verticals'} ({found.why})"
    return f"{where}; {found.verdict}" if found.verdict else where


def _hits(hits: list[Hit]) -> Table:
    table = Table(box=box.SIMPLE)
    for heading in ("", "item", "vertical", "distance", "image"):
        table.add_column(heading, justify="right" if heading in ("", "distance") else "left")
    for place, hit in enumerate(hits, 1):
        one, distance = hit.image, f"{hit.distance:.3f}"
        table.add_row(str(place), one.item, one.vertical, distance, one.image)
    return table


def _times(seconds: dict[str, float]) -> str:
    return ", ".join(f"{step} {1000 * value:.0f} ms" for step, value in seconds.items())
