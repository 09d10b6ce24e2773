"""Rank lists: what the student and the specialists find for a good, a typical and a bad query."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from apparel_embed.common.text import counted
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.evaluation.protocol import Outcomes, query_outcomes
from apparel_embed.report.drawing import literal, new_figure, png_bytes
from apparel_embed.report.inputs import COMBINED, UNIFIED, ReportInputs
from apparel_embed.report.page import Picture, Section

MOST_WORST = 4
"""Queries of a vertical that `worst_queries` chooses."""

RIGHT = "#1a8f4c"
WRONG = "#c62828"
_QUERY = "#444444"
_HITS = 10
# Bounds the size of the page: about 100 kB each.
_MOST_VERTICALS = 16
_THUMBNAIL_SIDE = 72
# Of the figure, in units of one thumbnail.
_CELL = 1.14
_LINE = 1.5
_HITS_FROM = 1.5
_TITLE = 0.3

# From the metrics of a vertical's queries to label and position of those to show.
_Choose = Callable[[QueryMetrics], list[tuple[str, int]]]


@dataclasses.dataclass(frozen=True)
class Hit:
    """A gallery image that a query found: its thumbnail, its item, whether that is the query's."""

    jpeg: bytes
    item: str
    right: bool


@dataclasses.dataclass(frozen=True)
class RankList:
    """What one model found for a query: average precision at R, and hits, nearest first."""

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


@dataclasses.dataclass(frozen=True)
class RankLists(Picture):
    """The rank lists of one vertical: a figure, which the page draws anew from thumbnails.

    Attributes:
      vertical: its name.
      queries: the chosen ones.
    """

    kind: ClassVar[str] = "ranks"
    vertical: str
    queries: tuple[RankedQuery, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Searched:
    """A model whose rank lists are shown."""

    name: str
    embeddings: np.ndarray
    outcomes: Outcomes


def ranks_section(inputs: ReportInputs) -> Section:
    """Returns the rank lists of every vertical that has an answered query."""
    title = "What is found"
    models = _searched(inputs)
    if not models:
        return Section("ranks", title, "No trained model was evaluated.")
    answered = models[0].outcomes.answered()
    silent = sorted(set(models[0].outcomes.verticals) - set(answered))
    parts = _rank_lists(inputs, models, chosen_queries)
    caption = (
        "For each vertical three queries, chosen by the average precision at R of "
        f"{models[0].name}, which looks at the R nearest where R pictures are right: good has "
        "the highest, bad the lowest, typical the lower median; of equals the smaller record "
        f"number is taken. Beside each query are its {_HITS} nearest gallery pictures within the "
        "vertical, nearest first: ✓ and a green frame for a picture of the query's item, ✗ and a "
        "red frame for another."
    )
    if len(models) > 1:
        caption += f" Below it is the same query under {models[1].name}."
    if len(parts) < len(answered):
        caption += f" Shown are the {len(parts)} of {len(answered)} verticals with most queries."
    if silent:
        caption += f" Without a query that has an answer: {', '.join(silent)}."
    return Section("ranks", title, caption, parts)


def chosen_queries(metrics: QueryMetrics) -> list[tuple[str, int]]:
    """Chooses a good, a typical and a bad query by average precision at R.

    Args:
      metrics: of at least one query.

    Returns:
      Label and position of each, the best first; of fewer than three queries one carries several
      labels, such as "good and typical".
    """
    precision, records = metrics.average_precision_at_r, metrics.records
    rising = np.lexsort((records, precision))
    labels: dict[int, list[str]] = {}
    for label, position in (
        ("good", np.lexsort((records, -precision))[0]),
        ("typical", rising[(len(rising) - 1) // 2]),
        ("bad", rising[0]),
    ):
        labels.setdefault(int(position), []).append(label)
    return [(" and ".join(names), position) for position, names in labels.items()]


def worst_queries(metrics: QueryMetrics) -> list[tuple[str, int]]:
    """Chooses the queries with the lowest average precision at R; of equals the smaller record.

    Args:
      metrics: of any number of queries.

    Returns:
      Label and position of each, at most `MOST_WORST`, the worst first.
    """
    rising = np.lexsort((metrics.records, metrics.average_precision_at_r))[:MOST_WORST]
    return [(f"worst {rank}", int(position)) for rank, position in enumerate(rising, start=1)]


def rank_lists(inputs: ReportInputs, choose: _Choose) -> tuple[RankLists, ...]:
    """Returns rank lists of chosen queries: of the student, or what comes next, and specialists.

    Args:
      inputs: what to show.
      choose: from the metrics of a vertical's queries to label and position of those to show.

    Returns:
      Rank lists of the verticals with most queries that have an answer, by name; none where no
      trained model was evaluated.
    """
    models = _searched(inputs)
    return _rank_lists(inputs, models, choose) if models else ()


def _searched(inputs: ReportInputs) -> list[_Searched]:
    """Returns the model by which queries are chosen, and the specialists if they are another."""
    known = [name for name in (UNIFIED, COMBINED, inputs.experts) if name in inputs.embeddings]
    names = dict.fromkeys(name for name in (*known[:1], inputs.experts) if name)
    found = ((name, inputs.embeddings[name]) for name in names)
    return [_Searched(name, one, query_outcomes(one, inputs.pictures)) for name, one in found]


def _rank_lists(
    inputs: ReportInputs, models: Sequence[_Searched], choose: _Choose
) -> tuple[RankLists, ...]:
    answered = models[0].outcomes.answered()
    shown = sorted(sorted(answered), key=lambda name: -len(answered[name]))[:_MOST_VERTICALS]
    found = []
    for number, vertical in enumerate(sorted(shown)):
        metrics = models[0].outcomes.verticals[vertical]
        queries = _ranked_queries(inputs, models, vertical, choose(metrics))
        gallery = counted(models[0].outcomes.gallery[vertical], "gallery picture")
        caption = (
            f"{counted(len(queries), 'query', 'queries')} chosen of {len(metrics):,} that have an "
            f"answer, searching {gallery}."
        )
        png = draw_rank_lists(vertical, queries)
        found.append(RankLists(f"ranks-{number:02d}", caption, png, vertical, queries))
    return tuple(found)


def _ranked_queries(
    inputs: ReportInputs,
    models: Sequence[_Searched],
    vertical: str,
    chosen: Sequence[tuple[str, int]],
) -> tuple[RankedQuery, ...]:
    # The same queries in the same order under every model.
    metrics = [model.outcomes.verticals[vertical] for model in models]
    records = metrics[0].records[[position for _, position in chosen]]
    hits = [_search(inputs, model, vertical, records) for model in models]
    return tuple(
        RankedQuery(
            label,
            _thumbnail(image),
            int(record),
            str(metrics[0].items[position]),
            tuple(
                RankList(model.name, float(its.average_precision_at_r[position]), found[number])
                for model, its, found in zip(models, metrics, hits)
            ),
        )
        for number, ((label, position), record, image) in enumerate(
            zip(chosen, records, inputs.dataset.read_images(records))
        )
    )


def _search(
    inputs: ReportInputs, model: _Searched, vertical: str, records: np.ndarray
) -> list[tuple[Hit, ...]]:
    """Returns the hits of each query in the gallery of its vertical."""
    pictures = inputs.pictures
    queries = np.searchsorted(pictures.records, records)
    gallery = np.flatnonzero((pictures.verticals == vertical) & pictures.is_gallery)
    positions, _ = nearest(
        model.embeddings[queries],
        model.embeddings[gallery],
        _HITS,
        records,
        pictures.records[gallery],
    )
    found = []
    for item, line in zip(pictures.items[queries], positions):
        hits = gallery[line[line >= 0]]
        images = inputs.dataset.read_images(pictures.records[hits])
        found.append(
            tuple(
                Hit(_thumbnail(image), str(other), bool(other == item))
                for image, other in zip(images, pictures.items[hits])
            )
        )
    return found


def square_thumbnail(image: bytes, side: int) -> Image.Image:
    """Returns an image as a square, on white where it is not square itself.

    Args:
      image: a file that Pillow reads.
      side: of the square, in pixels.
    """
    square = Image.new("RGB", (side, side), "white")
    with Image.open(io.BytesIO(image)) as picture:
        fitted = picture.convert("RGB")
    scale = side / max(fitted.size)
    size = [max(1, round(scale * length)) for length in fitted.size]
    fitted = fitted.resize(size, Image.Resampling.LANCZOS)
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return square


def _thumbnail(image: bytes) -> bytes:
    """Returns an image as a JPEG of one size."""
    buffer = io.BytesIO()
    square_thumbnail(image, _THUMBNAIL_SIDE).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def draw_rank_lists(vertical: str, queries: Sequence[RankedQuery]) -> bytes:
    """Returns the rank lists of a vertical as a figure, PNG: thumbnails in frames."""
    lines = sum(len(query.lists) for query in queries)
    most = max((len(found.hits) for query in queries for found in query.lists), default=0)
    width = _HITS_FROM + max(most, 4) * _CELL
    height = _TITLE + lines * _LINE
    figure = new_figure(0.78 * width, 0.78 * height)
    axis = figure.add_subplot()
    axis.set_axis_off()
    top = _TITLE
    axis.text(0, 0, literal(vertical), va="center", fontsize=12, fontweight="bold")
    for query in queries:
        axis.plot((0, width), (top, top), color="#d0d0d0", linewidth=0.8)
        _draw_picture(axis, query.jpeg, 0, top + 0.35, _QUERY)
        for found in query.lists:
            said = f"{query.label}: {found.model}, AP@R {found.average_precision:.2f}"
            axis.text(_HITS_FROM, top + 0.18, said, va="center", fontsize=9)
            for rank, hit in enumerate(found.hits):
                x, y = _HITS_FROM + rank * _CELL, top + 0.35
                colour, mark = (RIGHT, "✓") if hit.right else (WRONG, "✗")
                _draw_picture(axis, hit.jpeg, x, y, colour)
                # Says it once more, for those who see no difference of red and green.
                axis.text(
                    x + 0.87,
                    y + 0.86,
                    mark,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white",
                    bbox={"boxstyle": "round,pad=0.12", "color": colour},
                )
            top += _LINE
    # imshow sets limits of its own with each image.
    axis.set_xlim(-0.1, width)
    axis.set_ylim(height, -0.3)
    axis.set_aspect("equal")
    return png_bytes(figure)


def _draw_picture(axis: Axes, jpeg: bytes, x: float, y: float, colour: str) -> None:
    with Image.open(io.BytesIO(jpeg)) as picture:
        pixels = np.asarray(picture)
    axis.imshow(pixels, extent=(x, x + 1, y + 1, y), interpolation="antialiased")
    axis.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=3))
