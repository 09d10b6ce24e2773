"""A search for groups with real, tiny trainings."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard_plugins import hparams_table
from tiny_run import run_tool

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.models import embed_by_model
from apparel_embed.evaluation.protocol import query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.grouping.decision import Rule
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import StrategyConfig
from apparel_embed.grouping.trials import Budget
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.grouping import GROUPS_FILE, StageTrainer, grouping_stage
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.store.names import COMBINED_START, specialist_name
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TRAINING = SpecialistConfig(
    ModelConfig(image_size=32, embedding_dim=4),
    OptimizationConfig(steps=2),
    items_per_batch=4,
    images_per_item=2,
    loop=LoopConfig(validate_every=2),
)
ANYTHING = SearchConfig(StrategyConfig("greedy"), Rule(tolerance=1.0))


@pytest.fixture(scope="module")
def searched(tiny_prepared, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("searched")
    return run_dir, grouping_stage(Run(run_dir, tiny_prepared), ANYTHING, TRAINING)


def test_trials_are_stages_with_steps_for_each_of_their_verticals(searched):
    run_dir, stage = searched
    record = json.loads((stage.directory / GROUPS_FILE).read_text())

    assert stage.result == {"groups": [["bags", "dresses"]], "complete": True}
    assert record["groups"] == stage.result["groups"]
    steps = {trial["stage"]: trial["steps"] for trial in record["trials"]}
    assert steps == {
        "specialist-bags": 2,
        "specialist-dresses": 2,
        "specialist-bags+dresses": 4,
    }
    for name, count in steps.items():
        made = json.loads((run_dir / name / "stage.json").read_text())
        assert made["flags"]["optimization"]["steps"] == count


def test_trials_are_rows_of_the_hparams_tab(searched):
    run_dir, stage = searched
    record = json.loads((stage.directory / GROUPS_FILE).read_text())
    lines = hparams_table(run_dir)

    for trial in record["trials"]:
        hparams, metrics = lines.pop(f"grouping-greedy/tensorboard/{trial['stage']}")
        assert hparams["verticals"] == "+".join(trial["verticals"])
        own = [trial["r_at_1"][vertical] for vertical in trial["verticals"]]
        assert metrics["r_at_1"] == pytest.approx(np.mean(own))
    assert not lines


def test_a_finished_trial_is_reused_and_validated_on_every_vertical(searched, tiny_prepared):
    run_dir, _ = searched
    trainer = StageTrainer(Run(run_dir, tiny_prepared), TRAINING)
    before = (run_dir / "specialist-bags/stage.json").read_bytes()
    trial = trainer.train(("bags",))

    assert sorted(trial.outcomes.answered()) == ["bags", "dresses"]
    assert trial.seconds == json.loads(before)["result"]["trained_seconds"]
    assert (run_dir / "specialist-bags/stage.json").read_bytes() == before
    found = trainer.untrained().answered()["dresses"]
    np.testing.assert_array_equal(found.records, trial.outcomes.answered()["dresses"].records)


def test_a_search_without_its_stage_reuses_finished_trials(searched, tiny_prepared, caplog):
    run_dir, stage = searched
    record = (stage.directory / GROUPS_FILE).read_text()
    stage.directory.rename(run_dir / "lost")
    caplog.set_level("INFO", logger="absl")
    again = grouping_stage(Run(run_dir, tiny_prepared), ANYTHING, TRAINING)

    assert (again.directory / GROUPS_FILE).read_text() == record
    assert caplog.text.count("already finished, skipped") == 3


def test_a_search_with_another_budget_or_rule_decides_again_on_the_same_trials(
    searched, tiny_prepared, caplog
):
    run_dir, _ = searched
    trials = {path: path.read_bytes() for path in run_dir.glob("specialist-*/stage.json")}
    cases = (
        (Budget(trainings=1), [["bags"], ["dresses"]], False),
        (Budget(), [["bags", "dresses"]], True),
    )
    for budget, groups, complete in cases:
        changed = SearchConfig(ANYTHING.strategy, ANYTHING.rule, budget)
        stage = grouping_stage(Run(run_dir, tiny_prepared), changed, TRAINING)
        assert stage.result == {"groups": groups, "complete": complete}

    assert {path: path.read_bytes() for path in trials} == trials


def test_a_search_with_other_training_settings_is_refused_and_overwrites_nothing(
    searched, tiny_prepared
):
    run_dir, stage = searched
    before = (stage.directory / "stage.json").read_bytes()
    other = dataclasses.replace(TRAINING, min_images=1)
    changed = dataclasses.replace(ANYTHING, rule=Rule(tolerance=0.5))
    with pytest.raises(UserError, match="grouping-greedy: was made with --min_images=2, now it"):
        grouping_stage(Run(run_dir, tiny_prepared), changed, other)

    assert (stage.directory / "stage.json").read_bytes() == before


def test_trials_start_from_the_given_model_and_are_compared_with_it(tiny_prepared, tmp_path):
    both = tiny_prepared.verticals
    start = specialist_stage(Run(tmp_path, tiny_prepared), both, TRAINING, COMBINED_START)
    stage = grouping_stage(Run(tmp_path, tiny_prepared), ANYTHING, TRAINING, start)

    names = ["grouping-greedy"]
    names += ["specialist-bags", "specialist-dresses", "specialist-bags+dresses"]
    for name in names:
        record = json.loads((tmp_path / name / "stage.json").read_text())
        assert record["flags"]["start"] == COMBINED_START
        assert record["inputs"][COMBINED_START] == start.fingerprint
    trainer = StageTrainer(Run(tmp_path, tiny_prepared), TRAINING, start)
    images = evaluation_set(tiny_prepared, "val")
    model = embed_by_model(tiny_prepared, images.records, start.directory / "model")
    expected = query_outcomes(model.embeddings, images).answered()
    for vertical, found in trainer.untrained().answered().items():
        np.testing.assert_array_equal(found.recall[1], expected[vertical].recall[1])
        np.testing.assert_array_equal(
            found.average_precision_at_r, expected[vertical].average_precision_at_r
        )
    again = grouping_stage(Run(tmp_path, tiny_prepared), ANYTHING, TRAINING, start)
    assert (again.skipped, again.result) == (True, stage.result)
    with pytest.raises(UserError, match="was made with start='combined-start', now it is 'none'"):
        grouping_stage(Run(tmp_path, tiny_prepared), ANYTHING, TRAINING)


def test_different_given_groups_are_refused(tiny_prepared, tmp_path):
    def given(*groups):
        return SearchConfig(StrategyConfig("given", groups))

    made = grouping_stage(Run(tmp_path, tiny_prepared), given(("bags", "dresses")), TRAINING)
    with pytest.raises(UserError, match=r"grouping-given: was made with groups=\[\['bags', 'dres"):
        grouping_stage(Run(tmp_path, tiny_prepared), given(("bags",)), TRAINING)

    assert made.result["groups"] == [["bags", "dresses"]]


def test_without_validation_queries_nothing_is_trained_and_the_error_names_the_remedy(
    tiny_prepared, tmp_path
):
    trainer = StageTrainer(Run(tmp_path, _WithoutValidation(tiny_prepared)), TRAINING)
    with pytest.raises(UserError, match=r"split val has no query with a match.*--grouping=given"):
        trainer.train(("bags",))

    assert list(tmp_path.iterdir()) == []


class _WithoutValidation:
    """The dataset without images of split val."""

    def __init__(self, dataset):
        self.directory = dataset.directory
        self.verticals = dataset.verticals
        self.column = dataset.column

    def select(self, split, verticals=None):
        return np.zeros(0, np.int64)


def test_the_names_of_many_verticals_fit_into_a_directory_and_differ():
    verticals = [f"vertical number {number}" for number in range(50)]
    one, other = specialist_name(verticals), specialist_name(verticals[:-1])

    assert len(one.encode()) < 200
    assert one != other
    assert one == specialist_name(verticals[::-1])


def test_separators_in_vertical_names_lead_to_distinct_names_in_the_same_directory():
    assert specialist_name(["tops", "bags"]) == "specialist-bags+tops"
    names = [["a", "b"], ["a+b"], ["a/b"], ["a\\b"], ["a_b"], ["../../a"], ["a"]]
    found = {specialist_name(verticals) for verticals in names}

    assert len(found) == len(names)
    assert not any("/" in name or "\\" in name for name in found)


def test_the_binary_searches_and_prints_the_next_command(tiny_prepared, tmp_path):
    done = run_tool(
        "search_groups.py", f"--run_dir={tmp_path}",
        f"--prepared={tiny_prepared.directory}", "--grouping=affinity",
        "--budget_trainings=1", "--specialist_start=none",
        "--image_size=32", "--embedding_dim=4",
        "--specialist_steps=2", "--items_per_batch=4", "--images_per_item=2",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert "The budget was spent" in done.stdout
    assert json.loads((tmp_path / "grouping-affinity/groups.json").read_text())["groups"] == [
        ["bags"],
        ["dresses"],
    ]
    assert "grouping: trial 1: bags" in done.stderr
    # The next command has the same dataset.
    given = f"--run_dir={tmp_path} --prepared={tiny_prepared.directory}"
    assert done.stdout.splitlines()[-1].endswith(f"python tools/export_targets.py {given}")
