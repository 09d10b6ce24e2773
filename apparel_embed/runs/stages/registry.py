"""All kinds of stages, in the order in which a pipeline makes them. A new one is a line here."""

from __future__ import annotations

from apparel_embed.runs.run import StageKind
from apparel_embed.runs.stages import (
    combined,
    compression,
    evaluation,
    grouping,
    report,
    saved_model,
    specialist,
    student,
    summaries,
    sweep,
    targets,
    vertical_head,
    views,
)

STAGES: list[StageKind] = [
    views.KIND,
    combined.START,
    grouping.KIND,
    specialist.KIND,
    targets.KIND,
    student.KIND,
    combined.COMPARED,
    vertical_head.KIND,
    evaluation.KIND,
    saved_model.KIND,
    report.KIND,
    summaries.KIND,
    sweep.KIND,
    compression.KIND,
]
