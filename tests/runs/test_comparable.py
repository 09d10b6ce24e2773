from __future__ import annotations

import itertools
import logging
import shutil

import pytest
from report_runs import make_dataset

from apparel_embed.common.errors import UserError
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.comparable import check_images, check_settings
from apparel_embed.runs.stages.start import INIT_FROM, Start, weights_input
from apparel_embed.runs.stages.training import training_flags
from apparel_embed.store.names import (
    COMBINED,
    COMBINED_START,
    EVALUATION,
    STUDENT,
    TARGETS,
    specialist_name,
)
from apparel_embed.store.record import StageSpec, open_stage
from apparel_embed.store.runs import run_stage
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    items = [(f"i{number}", "bags", 2) for number in range(70)]
    return make_dataset(tmp_path_factory.mktemp("equal") / "data", items)


class MadeRuns:
    """Writes only the stage files of runs, with the flags of real ones."""

    def __init__(self, directory, dataset):
        self.directory, self.dataset = directory, dataset

    def make(
        self,
        name,
        seed,
        groups=("bags", "hats", "tops"),
        steps=10,
        learning_rate=1e-3,
        init_weights="none",
        **targets,
    ):
        """Returns the evaluation stage of a run; groups are vertical names joined by +."""
        run_dir = self.directory / name
        optimization = OptimizationConfig(steps=steps, seed=seed)
        specialist = SpecialistConfig(ModelConfig(), optimization, init_weights=init_weights)
        verticals = sorted("+".join(groups).split("+"))
        start = self._training(run_dir, COMBINED_START, verticals, specialist.for_verticals(3))
        members = [group.split("+") for group in groups]
        alone = [[vertical] for vertical in verticals]
        teachers = [
            self._training(
                run_dir, specialist_name(one), one, specialist.for_verticals(len(one)), start
            )
            for one in [*members, *(one for one in alone if one not in members)]
        ]
        flags = {"align_to": COMBINED_START, "dim": 64, "seed": seed, **targets}
        target = self._stage(
            run_dir / TARGETS, flags, {one.name: one.fingerprint for one in (*teachers, start)}
        )
        optimization = OptimizationConfig(steps=steps, seed=seed, learning_rate=learning_rate)
        student = self._trained(
            run_dir / STUDENT,
            StudentConfig(ModelConfig(), optimization),
            start,
            {},
            {TARGETS: target.fingerprint},
        )
        # As in the pipeline: the steps of all other trainings.
        further = sum(one.flags["optimization"]["steps"] for one in (*teachers, student))
        training = specialist.for_steps(further, verticals=3)
        combined = self._training(run_dir, COMBINED, verticals, training, start)
        stages = [*teachers, combined, student]
        return self._stage(
            run_dir / EVALUATION,
            {"split": "test", "seed": seed},
            {
                "prepared": self.dataset.fingerprint,
                **{one.name: one.fingerprint for one in stages},
                "init_weights": init_weights,
            },
        )

    def _training(self, run_dir, name, verticals, config, start=None):
        return self._trained(run_dir / name, config, start, {"verticals": verticals}, {})

    def _trained(self, directory, config, start, flags, inputs):
        made = {"prepared": self.dataset.fingerprint, **weights_input(config.init_weights)}
        return self._stage(
            directory,
            {**flags, **Start(start).flag, **training_flags(config)},
            {**made, **Start(start).inputs, **inputs},
        )

    def check(self, *evaluations):
        check_settings([one.directory.parent for one in evaluations], evaluations)

    def _stage(self, directory, flags, inputs):
        return run_stage(
            StageSpec(directory, flags=flags, inputs=inputs, work=lambda directory: {})
        )


@pytest.fixture
def runs(tmp_path, dataset):
    return MadeRuns(tmp_path, dataset)


def test_runs_may_differ_in_seeds(runs, caplog):
    frozen = {"align_to": "frozen", "frozen": {"model": {"image_size": 64}, "seed": 3}}
    other_frozen = {**frozen, "frozen": {**frozen["frozen"], "seed": 4}}
    with caplog.at_level(logging.WARNING, logger="absl"):
        runs.check(*(runs.make(f"s{seed}", seed) for seed in range(3)))
        runs.check(runs.make("f3", 3, **frozen), runs.make("f4", 4, **other_frozen))

    assert not caplog.text


def test_runs_may_differ_in_groups_and_in_the_stages_that_depend_on_them(runs):
    # The steps of the combined model differ, too: they are the sum over all other trainings.
    runs.check(
        runs.make("a", 0, ("bags", "hats+tops")),
        runs.make("b", 1, ("bags+hats+tops",)),
        runs.make("c", 2),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 20}, r"specialist-bags was made with optimization.steps=10 in .*, but 20 in"),
        (
            {"steps": 20, "groups": ("bags+hats", "tops")},
            r"specialist-\w+ was made with optimization.steps=10 in .*, but 20 in",
        ),
        (
            {"steps": 20, "groups": ("bags+hats+tops",)},
            r"was made with optimization.steps=\d+ in .*, but \d+ in",
        ),
        (
            {"learning_rate": 0.5},
            r"student was made with optimization.learning_rate=0.001 in .*, but 0.5 in",
        ),
        ({"dim": 32}, r"targets was made with dim=64 in .*, but 32 in"),
        ({"align_to": "none"}, r"with align_to=combined-start in .*, but none in"),
        ({"unlabelled": True}, r"targets was made with unlabelled=\(not set\) in .*, but True in"),
        ({"init_weights": "imagenet"}, r"was made with init_weights=none in .*, but imagenet in"),
    ],
)
def test_the_error_for_a_differing_setting_names_stage_runs_and_values(runs, options, message):
    equal = [runs.make("s0", 0), runs.make("s1", 1)]
    other = runs.make("other", 2, **options)
    end = "; expected runs that differ only in seeds and groups"

    for run in (equal, equal[::-1]):
        first = run[0].directory.parent.name
        with pytest.raises(UserError, match=rf"--runs: stage .*{message} .*other{end}") as refused:
            runs.check(*run, other)
        assert f"/{first}, but " in str(refused.value)


def test_stages_that_only_two_of_the_runs_have_are_compared(runs):
    evaluations = [
        runs.make("s0", 0, ("bags+hats+tops",)),
        runs.make("s1", 1),
        runs.make("s2", 2, ("bags+hats", "tops")),
    ]
    # Only the specialist of tops was trained differently, and the first run has none.
    shutil.rmtree(evaluations[2].directory.parent / "specialist-tops")
    runs.check(*evaluations)
    stage = runs._stage(
        evaluations[2].directory.parent / "specialist-tops", {"verticals": ["tops"]}, {}
    )
    evaluations[2].inputs["specialist-tops"] = stage.fingerprint

    with pytest.raises(
        UserError, match=r"specialist-tops was made with .* in .*s0, but .* in .*s2"
    ):
        runs.check(*evaluations)


def test_a_stage_that_is_missing_or_was_redone_is_skipped_with_a_warning(runs, caplog):
    first, second = runs.make("s0", 0), runs.make("s1", 1)
    for run in (first, second):
        shutil.rmtree(run.directory.parent / STUDENT)
    redone = runs._stage(second.directory.parent / STUDENT, {"start": "none"}, {})
    with caplog.at_level(logging.WARNING, logger="absl"):
        runs.check(first, second)

    for run in (first, second):
        skipped = run.directory.parent / STUDENT
        expected = f"{skipped}: missing or changed since {run.directory} was made from it"
        assert expected in caplog.text
    assert redone.directory.is_dir()


def test_stages_of_earlier_runs_that_runs_started_from_are_compared(runs, caplog):
    def second_step(name, seed, **first):
        noisy = runs.make(f"noisy-{name}", seed, **first)
        start = open_stage(noisy.directory.parent / COMBINED)
        stage = run_stage(
            StageSpec(
                runs.directory / name / STUDENT,
                flags={"start": INIT_FROM},
                inputs=Start(previous=start).inputs,
                work=lambda directory: Start(previous=start).result,
            )
        )
        inputs = {stage.name: stage.fingerprint}
        return runs._stage(runs.directory / name / EVALUATION, {"seed": seed}, inputs)

    with caplog.at_level(logging.WARNING, logger="absl"):
        equal = [second_step("s0", 0), second_step("s1", 1)]
        runs.check(*equal)
    assert not caplog.text
    with pytest.raises(
        UserError,
        match=r"init_from/combined-start was made with optimization.steps=30 in .*, but 60 in",
    ):
        runs.check(*equal, second_step("other", 2, steps=20))
    with pytest.raises(UserError, match=r"made with init_weights=none in .*, but imagenet in"):
        runs.check(*equal, second_step("weights", 3, init_weights="imagenet"))


def test_an_image_in_two_datasets_is_refused(dataset, tmp_path):
    items = [("i0", "bags", 2), *((f"other{number}", "bags", 2) for number in range(1, 70))]
    other = make_dataset(tmp_path / "data", items)
    run_dirs = [tmp_path / name for name in "aba"]
    message = r"/a and .*/b were .* share images of split test, such as 0_test_0\.png; expected"

    with pytest.raises(UserError, match=message):
        check_images(run_dirs, [dataset, other, dataset], "test")


def test_images_of_the_same_name_may_differ(dataset, tmp_path):
    items = [(f"i{number}", "bags", 2) for number in range(70)]
    # The first item is black on the left in all datasets, but differs on the right.
    other = make_dataset(tmp_path / "data", items, seed=1)
    assert other.index["image"] == dataset.index["image"]
    assert other.index["item_id"] == dataset.index["item_id"]

    check_images([tmp_path / "a", tmp_path / "b"], [dataset, other], "test")


def test_a_sample_spread_over_all_shared_images_is_compared(dataset, tmp_path, monkeypatch):
    # 140 images in test: every third is read. Only the last one is the same.
    items = [(f"i{number}", "bags", 2) for number in range(70)]
    other = make_dataset(tmp_path / "data", items, seed=1)
    read, seen = type(other).read_images, []

    def read_images(self, records):
        seen.append(len(records))
        images = read(self, records)
        return [*images[:-1], b"the same"]

    monkeypatch.setattr(type(other), "read_images", read_images)
    with pytest.raises(UserError, match="share images"):
        check_images([tmp_path / "a", tmp_path / "b"], [dataset, other], "test")
    assert seen == [47, 47]


def test_runs_on_one_dataset_may_share_images(dataset):
    for count in (2, 3):
        check_images([dataset.directory] * count, list(itertools.repeat(dataset, count)), "val")
