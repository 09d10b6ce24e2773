"""The vertical head of a pipeline's student."""

import types

import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.runs.stages.vertical_head import make
from apparel_embed.store.names import STUDENT, VERTICAL_HEAD


def test_a_head_of_an_earlier_student_is_refused_even_if_no_head_is_requested(
    tmp_path, tiny_prepared
):
    run = Run(tmp_path, tiny_prepared)

    def stage(name, **inputs):
        return run.make(name, lambda _: {}, flags={}, inputs=inputs)

    student = stage(STUDENT)
    pipeline = PipelineRun(
        run, types.SimpleNamespace(of_stages={}), STAGES, stages={STUDENT: [student]}
    )
    assert make(pipeline) == []
    head = stage(VERTICAL_HEAD, student=student.fingerprint)
    assert [one.fingerprint for one in make(pipeline)] == [head.fingerprint]

    student.directory.rename(tmp_path / "away")
    pipeline.stages[STUDENT] = [stage(STUDENT, targets="other")]
    with pytest.raises(UserError, match="vertical_head: was made from another student"):
        make(pipeline)
