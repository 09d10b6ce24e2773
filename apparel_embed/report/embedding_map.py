"""Two-dimensional maps of embeddings, coloured by vertical."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from apparel_embed.common.text import counted
from apparel_embed.evaluation.neighbours import unit_length
from apparel_embed.evaluation.roles import UNIFIED
from apparel_embed.report.drawing import literal, new_figure, png_bytes, vertical_style
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Section

_MOST_IMAGES = 2000
# A map of fewer images would show nothing.
_FEWEST_IMAGES = 8
_SEED = 0


def map_section(inputs: ReportInputs) -> Section:
    """Returns the section with maps of the specialists' spaces and the student's, side by side."""
    title = "Embedding space"
    chosen = sampled(len(inputs.images), _MOST_IMAGES)
    shown = {
        name: inputs.embeddings[name][chosen]
        for name in (inputs.experts, UNIFIED)
        if name and name in inputs.embeddings
    }
    distinct = [len(np.unique(values, axis=0)) for values in shown.values()]
    if min(distinct, default=0) < _FEWEST_IMAGES:
        return Section(
            "map",
            title,
            "No map: it needs specialists or a student, and at least "
            f"{_FEWEST_IMAGES} images with different embeddings.",
        )
    separate = (
        f" Each vertical of {inputs.experts} has its own space, or shares one with its group, so "
        "in that map an overlap of verticals or the distance between them means nothing."
        if inputs.experts
        else ""
    )
    figure = Figure(
        "map",
        f"{counted(len(chosen), 'image')} of the {len(inputs.images):,} of split "
        f"{inputs.split}, coloured by vertical; each map is a separate t-SNE, so positions in "
        f"different maps cannot be compared.{separate}",
        _draw(shown, inputs.images.verticals[chosen]),
    )
    return Section(
        "map",
        title,
        "Images that are similar to a model are close together. Distances between clusters, and "
        "their sizes, mean little in such a map.",
        (figure,),
    )


def sampled(count: int, most: int) -> np.ndarray:
    """Returns at most `most` ascending positions below `count`, the same at every call."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, most, replace=False))


def flattened(embeddings: np.ndarray) -> np.ndarray:
    """Returns a t-SNE map of embeddings.

    Args:
      embeddings: float32 [n, dim], n at least 4, dim at least 2, not all equal.

    Returns:
      float32 [n, 2].
    """
    points = unit_length(embeddings)
    # Imported here because the import takes seconds.
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=_SEED, n_jobs=1
    )
    # Sums over several threads round differently each time, and t-SNE magnifies that.
    with threadpool_limits(1):
        return tsne.fit_transform(points)


def _draw(embeddings: Mapping[str, np.ndarray], verticals: np.ndarray) -> bytes:
    names = [str(name) for name in np.unique(verticals)]
    width = 5.6 * len(embeddings)
    # As many columns of names, with their markers, as fit the width.
    longest = max(len(literal(name)) for name in names)
    columns = max(1, min(6, len(names), int(width / (0.5 + 0.1 * longest))))
    figure = new_figure(width, 5.6 + 0.25 * (-(-len(names) // columns)))
    axes = figure.subplots(1, len(embeddings), squeeze=False)[0]
    for axis, (model, values) in zip(axes, embeddings.items()):
        points = flattened(values)
        for number, name in enumerate(names):
            colour, marker = vertical_style(number)
            axis.scatter(
                *points[verticals == name].T,
                s=14 if len(points) <= 600 else 8,
                color=colour,
                marker=marker,
                linewidths=0,
                alpha=0.75,
                # The legend omits names with a leading underscore.
                label=literal(f"\u200b{name}" if name.startswith("_") else name),
            )
        axis.set_title(model, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_aspect("equal", adjustable="datalim")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, markerscale=2
    )
    return png_bytes(figure)
