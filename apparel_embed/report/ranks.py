"""Rank lists of the student and the specialists for a good, a typical and a bad query."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from apparel_embed.common.text import counted
from apparel_embed.data.labelled_sheet import draw_labelled_sheet
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.evaluation.protocol import Outcomes, query_outcomes
from apparel_embed.evaluation.roles import COMBINED, UNIFIED
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Section

MOST_WORST = 4
"""The most queries per vertical that `worst_queries` chooses."""

RIGHT = "#1a8f4c"
WRONG = "#c62828"
_QUERY = "#444444"
_HITS = 10
# Bounds the size of the page: a vertical takes about 100 kB.
_MOST_VERTICALS = 16
_THUMBNAIL_SIDE = 72
# Pads the rows of queries with fewer hits than others.
_NO_CELL = (np.full((1, 1, 3), 255), ("",) * 4, "white")

# Maps the metrics of a vertical's queries to label and position of those to show.
_Choose = Callable[[QueryMetrics], list[tuple[str, int]]]


@dataclasses.dataclass(frozen=True)
class Hit:
    """A gallery image that a query found: thumbnail, item, and whether that is the query's."""

    jpeg: bytes
    item: str
    right: bool


@dataclasses.dataclass(frozen=True)
class RankList:
    """The result of one model for a query: average precision at R, and hits, nearest first."""

    model: str
    average_precision: float
    hits: tuple[Hit, ...]


@dataclasses.dataclass(frozen=True)
class RankedQuery:
    """A query and the rank lists of models for it.

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
class RankLists(Figure):
    """The rank lists of one vertical: a figure that the page draws from thumbnails.

    Attributes:
      vertical: its name.
      queries: the chosen queries.
    """

    kind: ClassVar[str] = "ranks"
    vertical: str
    queries: tuple[RankedQuery, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Searched:
    """A model whose rank lists are shown."""

    name: str
    embeddings: np.ndarray
    outcomes: Outcomes


def ranks_section(inputs: ReportInputs) -> Section:
    """Returns the section with rank lists of every vertical that has an answered query."""
    title = "Examples of search results"
    models = searched_models(inputs)
    if not models:
        return Section("ranks", title, "No trained model was evaluated.")
    answered = models[0].outcomes.answered()
    silent = sorted(set(models[0].outcomes.verticals) - set(answered))
    parts = rank_lists(inputs, models, chosen_queries)
    caption = (
        "For each vertical three queries, chosen by the average precision at R of "
        f"{models[0].name}, which looks at the R nearest images if R images are right: good has "
        "the highest, bad the lowest, typical the lower median; ties go to the smaller record "
        f"number. Next to each query are its {_HITS} nearest gallery images within the vertical, "
        "nearest first: ✓ and a green frame for an image of the query's item, ✗ and a red frame "
        "for any other."
    )
    if len(models) > 1:
        caption += f" Below are the results of {models[1].name} for the same query."
    if len(parts) < len(answered):
        caption += f" Shown: the {len(parts)} of {len(answered)} verticals with the most queries."
    if silent:
        caption += f" Verticals without an answered query: {', '.join(silent)}."
    return Section("ranks", title, caption, parts)


def chosen_queries(metrics: QueryMetrics) -> list[tuple[str, int]]:
    """Chooses a good, a typical and a bad query by average precision at R.

    Args:
      metrics: metrics of at least one query.

    Returns:
      Label and position of each, the best first; with fewer than three queries, one has several
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
    """Chooses the queries with the lowest average precision at R; ties go to the smaller record.

    Args:
      metrics: metrics of any number of queries.

    Returns:
      Label and position of each, at most `MOST_WORST`, the worst first.
    """
    rising = np.lexsort((metrics.records, metrics.average_precision_at_r))[:MOST_WORST]
    return [(f"worst {rank}", int(position)) for rank, position in enumerate(rising, start=1)]


def searched_models(inputs: ReportInputs) -> list[Searched]:
    """Returns the models to show: student or else combined model, and specialists, if evaluated."""
    known = [name for name in (UNIFIED, COMBINED, inputs.experts) if name in inputs.embeddings]
    names = dict.fromkeys(name for name in (*known[:1], inputs.experts) if name)
    found = ((name, inputs.embeddings[name]) for name in names)
    return [Searched(name, one, query_outcomes(one, inputs.images)) for name, one in found]


def rank_lists(
    inputs: ReportInputs, models: Sequence[Searched], choose: _Choose
) -> tuple[RankLists, ...]:
    """Returns the rank lists of models for chosen queries of each vertical.

    Args:
      inputs: the inputs of the report.
      models: at least one model; queries are chosen by the first.
      choose: maps the metrics of a vertical's queries to label and position of those to show.

    Returns:
      Rank lists of the verticals with the most answered queries, sorted by name.
    """
    answered = models[0].outcomes.answered()
    shown = sorted(sorted(answered), key=lambda name: -len(answered[name]))[:_MOST_VERTICALS]
    found = []
    for number, vertical in enumerate(sorted(shown)):
        metrics = models[0].outcomes.verticals[vertical]
        queries = _ranked_queries(inputs, models, vertical, choose(metrics))
        gallery = counted(models[0].outcomes.gallery[vertical], "gallery image")
        caption = (
            f"{counted(len(queries), 'query', 'queries')} chosen from {len(metrics):,} with an "
            f"answer, searching {gallery}."
        )
        png = draw_rank_lists(vertical, queries)
        found.append(RankLists(f"ranks-{number:02d}", caption, png, vertical, queries))
    return tuple(found)


def _ranked_queries(
    inputs: ReportInputs,
    models: Sequence[Searched],
    vertical: str,
    chosen: Sequence[tuple[str, int]],
) -> tuple[RankedQuery, ...]:
    # Every model has the same queries in the same order.
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
    inputs: ReportInputs, model: Searched, vertical: str, records: np.ndarray
) -> list[tuple[Hit, ...]]:
    """Returns the hits of each query in the gallery of its vertical."""
    measured = inputs.images
    queries = np.searchsorted(measured.records, records)
    gallery = np.flatnonzero((measured.verticals == vertical) & measured.is_gallery)
    positions, _ = nearest(
        model.embeddings[queries],
        model.embeddings[gallery],
        _HITS,
        records,
        measured.records[gallery],
    )
    found = []
    for item, line in zip(measured.items[queries], positions):
        hits = gallery[line[line >= 0]]
        images = inputs.dataset.read_images(measured.records[hits])
        found.append(
            tuple(
                Hit(_thumbnail(image), str(other), bool(other == item))
                for image, other in zip(images, measured.items[hits])
            )
        )
    return found


def square_thumbnail(image: bytes, side: int) -> Image.Image:
    """Returns an image as a square, padded with white.

    Args:
      image: content of a file that Pillow can read.
      side: side of the square, in pixels.
    """
    square = Image.new("RGB", (side, side), "white")
    with Image.open(io.BytesIO(image)) as opened:
        fitted = opened.convert("RGB")
    scale = side / max(fitted.size)
    size = [max(1, round(scale * length)) for length in fitted.size]
    fitted = fitted.resize(size, Image.Resampling.LANCZOS)
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return square


def _thumbnail(image: bytes) -> bytes:
    """Returns an image as a JPEG of thumbnail size."""
    buffer = io.BytesIO()
    square_thumbnail(image, _THUMBNAIL_SIDE).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def draw_rank_lists(vertical: str, queries: Sequence[RankedQuery]) -> bytes:
    """Returns rank lists as a PNG figure with one row per query and model."""
    columns = 1 + max(len(found.hits) for query in queries for found in query.lists)
    cells: list[tuple[np.ndarray, tuple[str, ...], str]] = []
    for query in queries:
        for found in query.lists:
            score = f"AP@R {found.average_precision:.2f}"
            caption = (query.label, found.model, score, vertical)
            cells.append((_pixels(query.jpeg), caption, _QUERY))
            for hit in found.hits:
                # Words, because colour-blind readers may not distinguish red from green.
                word, colour = ("right", RIGHT) if hit.right else ("wrong", WRONG)
                cells.append((_pixels(hit.jpeg), (word, hit.item, "", ""), colour))
            cells += [_NO_CELL] * (-len(cells) % columns)
    figure = io.BytesIO()
    images, captions, frames = zip(*cells)
    sheet = draw_labelled_sheet(images, captions, columns, frames)
    Image.fromarray(sheet).save(figure, "PNG")
    return figure.getvalue()


def _pixels(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image)
