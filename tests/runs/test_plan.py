import dataclasses

import pytest
from tiny_run import PLANNED, config_of

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import prepare
from apparel_embed.data.synthetic.generate import generate
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import StrategyConfig
from apparel_embed.runs.pipeline import plan_pipeline, run_pipeline
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.store.names import COMBINED_START
from apparel_embed.store.record import StageSpec, Workload
from apparel_embed.store.runs import StageAccess, run_stage


def states(plan):
    return {stage.name: stage.state for stage in plan.stages.values()}


def sizes(plan):
    return {stage.name: stage.size for stage in plan.stages.values()}


def content(directory):
    return {path: path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))}


def with_groups(config, name, groups=()):
    strategy = StrategyConfig(name, tuple(groups))
    return dataclasses.replace(config, grouping=SearchConfig(strategy))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run whose dataset is prepared, and the dataset."""
    config = with_groups(config_of(tmp_path_factory.mktemp("plan") / "run"), "each")
    drawn = generate(config.synthetic, config.run_dir / "synthetic")
    preparing = dataclasses.replace(config.prepare, manifest=drawn.manifest)
    return config, prepare(preparing, processes=1)


def test_all_stages_of_a_new_run_are_to_do_and_nothing_is_written(tmp_path):
    config = with_groups(config_of(tmp_path / "run"), "each")
    plan = plan_pipeline(config)

    assert tuple(states(plan)) == PLANNED
    assert set(states(plan).values()) == {"to do"}
    # 13 items with 5 images each, in 2 verticals.
    assert sizes(plan)["synthetic"] == "130 images to draw"
    assert sizes(plan)["prepared"] == "130 images"
    assert sizes(plan)["specialist-bag"] == "24 steps of 4 x 2 images, out of 30"
    assert sizes(plan)["combined-start"] == "24 steps of 4 x 2 images, out of 60"
    # As many steps as two specialists and the student.
    assert sizes(plan)["combined"] == "72 steps of 4 x 2 images, out of 60"
    assert sizes(plan)["targets"] == "60 images"
    assert sizes(plan)["student"] == "24 steps of 8 images, out of 60"
    assert sizes(plan)["evaluation"] == "40 images"
    assert plan.work == Workload(triplet_steps=24 + 2 * 24 + 72, student_steps=24)
    assert plan.train_images == 60
    assert not any(tmp_path.iterdir())


def test_a_plan_is_rendered_as_a_table(tmp_path):
    lines = plan_pipeline(config_of(tmp_path / "run")).render().splitlines()

    assert lines[0] == "synthetic          to do  130 images to draw"
    assert "--grouping=affinity also trains groups to find the best ones" in lines[-2]
    assert lines[-1] == "Nothing was run or written (--dry_run)."

    *_, time, end = plan_pipeline(config_of(tmp_path / "run")).render("An hour.").splitlines()
    assert (time, end) == ("An hour.", lines[-1])


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        # A specialist of two verticals has the steps of two specialists.
        ({}, {"specialist-bag+dress": 48, "specialist-bag": 24, "combined": 48 + 2 * 24 + 24}),
        ({"single_specialists": False}, {"specialist-bag+dress": 48, "combined": 48 + 24}),
        (
            {"combined_seeds": 3},
            {
                "combined-start-2": 24,
                "specialist3-bag+dress": 48,
                "specialist3-dress": 24,
                "combined": 2 * 24 + 3 * (48 + 2 * 24) + 24,
            },
        ),
    ],
)
def test_the_combined_model_for_comparison_has_the_steps_of_all_other_trainings(
    tmp_path, changes, planned
):
    config = with_groups(config_of(tmp_path / "run"), "given", [("bag", "dress")])
    plan = plan_pipeline(dataclasses.replace(config, **changes))

    found = sizes(plan)
    assert found["combined-start"].startswith("24 steps")
    for name, steps in planned.items():
        assert found[name].startswith(f"{steps} steps"), name
    assert ("specialist-bag" in found) == changes.get("single_specialists", True)


def test_specialists_and_student_need_not_start_from_the_combined_model(tmp_path, monkeypatch):
    config = with_groups(config_of(tmp_path / "run"), "each")
    starts, seen = {}, {}

    make = StagePlan.make

    def made(plan, spec):
        seen[spec.directory.name] = spec.flags
        return make(plan, spec)

    monkeypatch.setattr(StagePlan, "make", made)
    for from_combined in (True, False):
        changed = dataclasses.replace(
            config,
            specialists_start_from_combined=from_combined,
            start_from_combined=from_combined,
        )
        plan_pipeline(changed)
        starts[from_combined] = [
            seen[name]["start"]
            for name in ("combined-start", "specialist-bag", "student", "combined")
        ]
    start = "combined-start"
    assert starts == {True: ["none", start, start, start], False: ["none", "none", "none", start]}


def test_a_plan_shows_finished_and_interrupted_stages(begun):
    config, dataset = begun
    run_dir = config.run_dir

    def without_work(spec):
        return run_stage(dataclasses.replace(spec, work=lambda directory: {"model": "none"}))

    def interrupted(spec):
        with pytest.raises(KeyboardInterrupt):
            run_stage(dataclasses.replace(spec, work=lambda directory: _interrupt()))

    training, done = config.specialist, StageAccess(make=without_work)
    start = specialist_stage(
        Run(run_dir, dataset, done),
        ["bag", "dress"],
        training.for_steps(24, verticals=2),
        COMBINED_START,
    )
    specialist_stage(Run(run_dir, dataset, done), ["bag"], training, start=start)
    died = StageAccess(make=interrupted)
    specialist_stage(Run(run_dir, dataset, died), ["dress"], training, start=start)
    before = content(run_dir)
    found = states(plan_pipeline(config))

    for name in ("synthetic", "prepared", "combined-start", "specialist-bag"):
        assert found[name] == "finished"
    assert found["specialist-dress"] == "to be resumed"
    assert found["combined"] == found["student"] == "to do"
    assert content(run_dir) == before


def _interrupt():
    raise KeyboardInterrupt


def test_other_flags_are_refused_as_in_the_real_run(begun):
    config, _ = begun
    longer = dataclasses.replace(
        config.specialist,
        optimization=dataclasses.replace(config.specialist.optimization, steps=25),
    )
    for wrong in (
        dataclasses.replace(config, specialist=longer),
        dataclasses.replace(config, prepare=dataclasses.replace(config.prepare, max_side=40)),
        dataclasses.replace(config, synthetic=dataclasses.replace(config.synthetic, train_items=7)),
        with_groups(config, "given", [("bag", "sock")]),
    ):
        with pytest.raises(UserError) as planned:
            plan_pipeline(wrong).refuse()
        with pytest.raises(UserError) as refused:
            run_pipeline(wrong)
        assert str(planned.value) == str(refused.value)


def spec_of(directory, flags, inputs=None):
    return StageSpec(directory, flags=flags, inputs=inputs or {}, work=lambda _: {})


def test_the_error_names_all_stages_made_with_other_flags_and_they_can_be_redone(begun):
    config, _ = begun
    run_dir = config.run_dir
    for steps in (1, 2):
        plan = StagePlan(run_dir)
        access = plan.access if steps == 2 else StageAccess()
        first = access.make(spec_of(run_dir / "first", {"loop": {"steps": steps}}))
        access.make(spec_of(run_dir / "second", {}, {"first": first.fingerprint}))
    with pytest.raises(UserError) as refused:
        plan.render()
    assert str(refused.value) == (
        f"{run_dir}: first was made with loop.steps=1, now it is 2; stages that depend on them: "
        "second. Use another --run_dir, or redo them with tools/run_pipeline.py "
        "--redo_from=first, which keeps the old ones"
    )

    plan = StagePlan(run_dir, ["first"])
    plan.access.make(spec_of(run_dir / "first", {"loop": {"steps": 2}}))
    assert plan.access.find(run_dir / "second") is None
    assert states(plan) == {"first": "to be redone"}


def test_the_suggested_redo_from_includes_the_given_one(tmp_path):
    for name in ("student", "combined"):
        run_stage(spec_of(tmp_path / name, {"steps": 1}))
    for redo_from, suggested in (
        (["student"], "student,combined"),
        (["combined"], "combined,student"),
    ):
        plan = StagePlan(tmp_path, redo_from)
        for name in ("student", "combined"):
            plan.access.make(spec_of(tmp_path / name, {"steps": 2}))
        with pytest.raises(UserError) as refused:
            plan.refuse()
        differing = suggested.split(",")[1]
        assert str(refused.value) == (
            f"{tmp_path}: {differing} was made with steps=1, now it is 2. Use another --run_dir, "
            f"or redo them with tools/run_pipeline.py --redo_from={suggested}, which keeps the "
            "old ones"
        )
