"""Flags of what is served."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.serving.decoding import LARGEST_SERVED_PIXELS
from apparel_embed.serving.saved_model import ExportConfig


def vertical_head_flag() -> flags.FlagHolder[bool]:
    """Returns the flag that says whether the served model tells a picture's vertical."""
    return flags.DEFINE_bool(
        "vertical_head",
        False,
        "train a classifier of verticals on the finished student's features, export it with the "
        "model and evaluate searches that it routes; the embedding does not change (evaluate takes "
        "that of the run if there is one)",
    )


class ExportFlags:
    """How a SavedModel is exported."""

    def __init__(self) -> None:
        default = ExportConfig()
        self._max_pixels = define_number(
            "serving_max_pixels",
            default.max_pixels,
            "pictures of more pixels are answered valid=false before they are decoded",
            1,
            LARGEST_SERVED_PIXELS,
        )
        self._warm_up = flags.DEFINE_bool(
            "warm_up",
            default.warm_up,
            "store requests that TensorFlow Serving replays when it loads the model",
        )

    def config(self) -> ExportConfig:
        """Returns the configuration of the export."""
        return ExportConfig(max_pixels=self._max_pixels.value, warm_up=self._warm_up.value)
