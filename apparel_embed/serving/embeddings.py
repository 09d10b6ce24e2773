"""What a served model answers, whether it runs in this process or elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Embeddings(NamedTuple):
    """The answer to a list of pictures, in their order.

    Attributes:
      embeddings: float32 [n, dim], of unit length; zeros where a picture is not valid.
      valid: bool [n], whether there was a picture that could be embedded.
      vertical_scores: float32 [n, verticals], the probability of every vertical, zeros where a
        picture is not valid; None if the model was exported without `--vertical_head`.
    """

    embeddings: np.ndarray
    valid: np.ndarray
    vertical_scores: np.ndarray | None
