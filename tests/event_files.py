"""Reads TensorBoard's event files with TensorBoard's own code."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator


@dataclasses.dataclass(frozen=True)
class Logged:
    """A tag of an event file.

    Attributes:
      plugin: name of the plugin that shows it.
      values: values by step.
    """

    plugin: str
    values: dict[int, np.ndarray]

    @property
    def last(self) -> np.ndarray:
        return self.values[max(self.values)]


def read_events(directory: Path) -> tuple[dict[str, Logged], bool]:
    """Returns the logged values by tag, and whether a graph was logged."""
    found, has_graph = {}, False
    for file in sorted(directory.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={TENSORS: 0})
        events.Reload()
        has_graph |= events.Tags()["graph"]
        for tag in events.Tags()[TENSORS]:
            plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
            logged = found.setdefault(tag, Logged(plugin, {}))
            for event in events.Tensors(tag):
                logged.values[event.step] = tf.make_ndarray(event.tensor_proto)
    return found, has_graph


def only_image(logged: Logged) -> np.ndarray:
    """Returns the only image of an image summary: uint8 [height, width, 3]."""
    (values,) = logged.values.values()
    width, height, png = values
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (int(width), int(height))
        return np.asarray(image.convert("RGB"))
