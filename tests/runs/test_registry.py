import pytest

from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import PipelineRun, Run, StageKind, shown_in_report
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.store.names import FROZEN_VIEWS
from apparel_embed.store.record import Workload
from apparel_embed.training.input import InputConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig


def test_kinds_have_different_names():
    names = [kind.name for kind in STAGES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("in_report", [True, False])
def test_a_new_kind_only_needs_its_entry_to_be_run_planned_and_shown(
    tmp_path, tiny_prepared, tiny_unlabelled, in_report
):
    def make(pipeline):
        made = pipeline.run.make("mine", lambda _: {"n": 3}, flags={}, inputs={}, size="3 things")
        return [made]

    kinds = [StageKind("mine", make, in_report), StageKind("other")]
    plan = StagePlan(tmp_path / "run")
    PipelineRun(Run(tmp_path / "run", tiny_prepared, plan.access), None, kinds).make_stages()
    (planned,) = plan.stages.values()
    assert (planned.name, planned.state, planned.size) == ("mine", "to do", "3 things")
    assert not (tmp_path / "run").exists()

    pipeline = PipelineRun(Run(tmp_path / "run", tiny_prepared), None, kinds)
    pipeline.make_stages()
    assert pipeline["mine"].result == {"n": 3}
    assert pipeline["mine"].inputs == {"prepared": tiny_prepared.fingerprint}
    assert pipeline.get("other") is None
    shown = [stage.name for stage in shown_in_report(pipeline.run, kinds)]
    assert shown == (["mine"] if in_report else [])
    # A stage of another dataset is not shown as if it were of this one.
    assert shown_in_report(Run(tmp_path / "run", tiny_unlabelled), kinds) == []


def test_trainings_on_a_frozen_backbone_are_planned_as_its_views(tmp_path, tiny_prepared):
    config = SpecialistConfig(
        ModelConfig(image_size=32, embedding_dim=4, pooling="pyramid"),
        OptimizationConfig(steps=5, train_backbone=False),
        init_weights="imagenet",
        input=InputConfig(views=3),
    )
    plan = StagePlan(tmp_path)
    for verticals in (["bags"], ["dresses"]):
        specialist_stage(Run(tmp_path, tiny_prepared, plan.access), verticals, config)

    assert plan.work == Workload(views=3 * 32)
    sizes = {stage.name: stage.size for stage in plan.stages.values()}
    assert sizes[FROZEN_VIEWS] == "3 views of 32 images"
    assert sizes["specialist-bags"] == "5 steps of 16 x 4 images, out of 16"
