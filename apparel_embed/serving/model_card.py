"""The model card: what a served model is, was made of and reaches, as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What the card tells.

    Attributes:
      name: of the run.
      stage: that trained the model.
      fingerprint: of that stage.
      versions: of what it was made with, by package.
      model: the model's configuration, JSON values.
      parameters: of the model.
      data_fingerprint: of the prepared dataset.
      counts: pictures by vertical and split.
      groups: verticals of each of the student's teachers; none if they are not known.
      max_pixels: pictures of more are refused.
      evaluated_as: name of the model in the summary.
      split: that was evaluated, or None.
      metrics: rows of the model in `summary.json`, none if it was not evaluated.
      routing: entry `routing` of the summary, or None.
      searches: a sentence that tells when the prediction of the vertical head is followed; "" for a
        model without.
    """

    name: str
    stage: str
    fingerprint: str
    versions: Mapping[str, str]
    model: Mapping[str, Any]
    parameters: int
    data_fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    groups: Sequence[Sequence[str]]
    max_pixels: int
    evaluated_as: str = ""
    split: str | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    routing: Mapping[str, Any] | None = None
    searches: str = ""


def render_model_card(card: ModelCard) -> str:
    """Returns the card as Markdown."""
    environment = Environment(
        loader=PackageLoader("apparel_embed.serving"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = _share
    environment.filters["interval"] = _interval
    splits = sorted({split for counts in card.counts.values() for split in counts})
    values = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    return environment.get_template("model_card.md").render(
        **{
            **values,
            "versions": sorted(card.versions.items()),
            "records": sum(sum(counts.values()) for counts in card.counts.values()),
            "splits": splits,
            "verticals": [
                (vertical, [counts.get(split, 0) for split in splits])
                for vertical, counts in sorted(card.counts.items())
            ],
        }
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, Any], field: str) -> str:
    if row[field] is None:
        return "-"
    return f"{row[field]:.3f} [{row[f'{field}_low']:.3f}, {row[f'{field}_high']:.3f}]"
