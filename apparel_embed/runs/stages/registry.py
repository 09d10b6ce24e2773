"""All kinds of stages, in the order in which a pipeline runs them. Add a new kind as a line here.

Functions are given by name because flags need the list of kinds before TensorFlow, which most of
these modules need, is imported.
"""

from __future__ import annotations

from apparel_embed.runs.config import VerticalHeadConfig
from apparel_embed.runs.run import StageKind
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import (
    COMBINED,
    COMBINED_START,
    COMPRESSION,
    DETECTOR,
    EVALUATION,
    FROZEN_VIEWS,
    GROUPING,
    REPORT,
    SPECIALIST,
    STUDENT,
    SUMMARIES,
    SWEEP,
    TARGETS,
    VERTICAL_HEAD,
)

_HERE = "apparel_embed.runs.stages"

STAGES: list[StageKind] = [
    StageKind(FROZEN_VIEWS),
    StageKind(COMBINED_START, f"{_HERE}.combined:make_starts"),
    StageKind(GROUPING, f"{_HERE}.grouping:make"),
    StageKind(SPECIALIST, f"{_HERE}.specialist:make"),
    StageKind(TARGETS, f"{_HERE}.targets:make", in_report=True),
    StageKind(STUDENT, f"{_HERE}.student:make"),
    StageKind(COMBINED, f"{_HERE}.combined:make_compared"),
    StageKind(VERTICAL_HEAD, f"{_HERE}.vertical_head:make", config=VerticalHeadConfig),
    StageKind(DETECTOR, f"{_HERE}.detector:make"),
    StageKind(EVALUATION, f"{_HERE}.evaluation:make"),
    StageKind(SAVED_MODEL, f"{_HERE}.saved_model:make"),
    StageKind(REPORT, f"{_HERE}.report:make"),
    StageKind(SUMMARIES, f"{_HERE}.summaries:make"),
    StageKind(SWEEP, in_report=True),
    StageKind(COMPRESSION, in_report=True),
]
