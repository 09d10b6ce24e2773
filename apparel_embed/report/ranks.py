"""Rank lists: what the student and the specialists find for a good, a typical and a bad query."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.evaluation.protocol import Outcomes, query_outcomes
from apparel_embed.report.inputs import COMBINED, UNIFIED, ReportInputs
from apparel_embed.report.parts import (
    Hit,
    RankedQuery,
    RankList,
    RankLists,
    Section,
)
from apparel_embed.report.ranks_figure import rank_lists_picture
from apparel_embed.report.thumbnails import square_thumbnail

MOST_WORST = 4
"""Queries of a vertical that `worst_queries` chooses."""

_HITS = 10
# Bounds the size of the page: about 100 kB each.
_MOST_VERTICALS = 16
_THUMBNAIL_SIDE = 72


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
    good = np.lexsort((records, -precision))[0]
    labels: dict[int, list[str]] = {}
    for label, position in (
        ("good", good),
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


def rank_lists(
    inputs: ReportInputs, choose: Callable[[QueryMetrics], list[tuple[str, int]]]
) -> tuple[RankLists, ...]:
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
    leads = (UNIFIED, COMBINED, inputs.experts)
    names = [name for name in leads if name and name in inputs.embeddings][:1]
    names += [name for name in (inputs.experts,) if names and name and name != names[0]]
    return [
        _Searched(name, inputs.embeddings[name], query_outcomes(embeddings, inputs.pictures))
        for name, embeddings in ((name, inputs.embeddings[name]) for name in names)
    ]


def _rank_lists(
    inputs: ReportInputs,
    models: Sequence[_Searched],
    choose: Callable[[QueryMetrics], list[tuple[str, int]]],
) -> tuple[RankLists, ...]:
    answered = models[0].outcomes.answered()
    shown = sorted(sorted(answered), key=lambda name: -len(answered[name]))[:_MOST_VERTICALS]
    return tuple(
        _of_vertical(inputs, models, vertical, number, choose)
        for number, vertical in enumerate(sorted(shown))
    )


def _of_vertical(
    inputs: ReportInputs,
    models: Sequence[_Searched],
    vertical: str,
    number: int,
    choose: Callable[[QueryMetrics], list[tuple[str, int]]],
) -> RankLists:
    metrics = models[0].outcomes.verticals[vertical]
    chosen = choose(metrics)
    records = metrics.records[[position for _, position in chosen]]
    found = [_search(inputs, model, vertical, records) for model in models]
    lists = [
        tuple(
            RankList(model.name, _precision(model, vertical, record), hits[query])
            for model, hits in zip(models, found)
        )
        for query, record in enumerate(records)
    ]
    thumbnails = [_thumbnail(image) for image in inputs.dataset.read_images(records)]
    queries = tuple(
        RankedQuery(label, jpeg, int(record), str(metrics.items[position]), of_query)
        for (label, position), jpeg, record, of_query in zip(chosen, thumbnails, records, lists)
    )
    gallery = models[0].outcomes.gallery[vertical]
    caption = (
        f"{counted(len(queries), 'query', 'queries')} chosen of {len(metrics):,} that have an "
        f"answer, searching {counted(gallery, 'gallery picture')}."
    )
    name = f"ranks-{number:02d}"
    return RankLists(
        vertical, caption, queries, rank_lists_picture(name, vertical, queries, caption)
    )


def _precision(model: _Searched, vertical: str, record: int) -> float:
    metrics = model.outcomes.verticals[vertical]
    return float(metrics.average_precision_at_r[np.flatnonzero(metrics.records == record)[0]])


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
    for query, line in zip(queries, positions):
        hits = gallery[line[line >= 0]]
        images = inputs.dataset.read_images(pictures.records[hits])
        found.append(
            tuple(
                Hit(
                    _thumbnail(image),
                    str(pictures.items[hit]),
                    bool(pictures.items[hit] == pictures.items[query]),
                )
                for image, hit in zip(images, hits)
            )
        )
    return found


def _thumbnail(image: bytes) -> bytes:
    """Returns a picture as a JPEG of one size."""
    buffer = io.BytesIO()
    square_thumbnail(image, _THUMBNAIL_SIDE).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
