import subprocess
import sys
from pathlib import Path

from apparel_embed.runs.stages.training import names_of_flags, training_flags
from apparel_embed.store.record import flat_settings
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

TOOL = Path(__file__).parents[3] / "tools/run_pipeline.py"
# Named by their path in the record: one that does not only depend on its flag, and the strategy.
UNNAMED = {"optimization.train_backbone", "strategy"}


def test_settings_of_trainings_are_named_after_existing_flags():
    listed = subprocess.run(
        [sys.executable, TOOL, "--helpfull"], capture_output=True, text=True
    ).stdout
    student = names_of_flags(StudentConfig(), "--student_steps")
    specialist = names_of_flags(SpecialistConfig(), "--specialist_steps")
    for names, config in ((student, StudentConfig()), (specialist, SpecialistConfig())):
        assert set(flat_settings(training_flags(config))) - set(names) == UNNAMED
        for flag in names.values():
            assert f"{flag}=" in listed, flag
    assert student["optimization.steps"] == "--student_steps"
    assert student["loss"] == "--student_loss"
    assert student["input.augment.zoom"] == "--augment_zoom"
    assert specialist["loss.name"] == "--loss"
    assert specialist["optimization.learning_rate"] == "--specialist_learning_rate"


def test_the_name_of_a_flag_per_vertical_contains_the_number_of_verticals():
    names = names_of_flags(SpecialistConfig(), "--combined_steps", 3)
    assert names["optimization.steps"] == "optimization.steps (--combined_steps x 3 verticals)"
    # The steps of the combined model for comparison follow from other trainings.
    names = names_of_flags(SpecialistConfig(), "", 3)
    assert names["optimization.steps"] == "optimization.steps"
