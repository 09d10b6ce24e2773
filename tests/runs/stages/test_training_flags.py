import subprocess
import sys
from pathlib import Path

from apparel_embed.runs.stages.training import names_of_flags, training_flags
from apparel_embed.store.record import flat_settings
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

TOOL = Path(__file__).parents[3] / "tools/run_pipeline.py"
# Told by their place in the record: one that a flag decides by more than its value, and one that
# is a strategy's.
UNNAMED = {"optimization.train_backbone", "strategy"}


def test_settings_of_trainings_are_called_by_flags_that_there_are():
    told = subprocess.run(
        [sys.executable, TOOL, "--helpfull"], capture_output=True, text=True
    ).stdout
    student = names_of_flags(StudentConfig(), "--student_steps")
    specialist = names_of_flags(SpecialistConfig(), "--specialist_steps")
    for names, config in ((student, StudentConfig()), (specialist, SpecialistConfig())):
        assert set(flat_settings(training_flags(config))) - set(names) == UNNAMED
        for flag in names.values():
            assert f"{flag}=" in told, flag
    assert student["optimization.steps"] == "--student_steps"
    assert student["loss"] == "--student_loss"
    assert student["input.augment.zoom"] == "--augment_zoom"
    assert specialist["loss.name"] == "--loss"
    assert specialist["optimization.learning_rate"] == "--specialist_learning_rate"


def test_a_flag_that_is_told_for_one_vertical_says_for_how_many():
    names = names_of_flags(SpecialistConfig(), "--combined_steps", 3)
    assert names["optimization.steps"] == "optimization.steps (--combined_steps x 3 verticals)"
    # Those of the combined model to compare with follow from other trainings.
    names = names_of_flags(SpecialistConfig(), "", 3)
    assert names["optimization.steps"] == "optimization.steps"
