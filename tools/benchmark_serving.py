r"""Times the served student: against its parts called raw, and against the specialists it replaces.

    python tools/benchmark_serving.py --run_dir=runs/mine --json

Without --run_dir models of random weights are made up, which are as fast as trained ones, and
pictures. All are measured in turns in one process; ratios are of medians.
"""

from __future__ import annotations

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.serving import (
    figures_of,
    made_up_subjects,
    measure_serving,
    subjects_of_run,
)
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.runs.stages.training import STUDENT, single_specialists
from apparel_embed.store.record import open_stage

_RUN = RunFlags(optional="it has one specialist per vertical; by default models are made up")
_BATCH_SIZE = define_number("batch_size", 32, "pictures asked for at once", 1, 4096)
_ROUNDS = define_number("rounds", 20, "how often each is measured", 1)
_SPECIALISTS = define_number("made_up_specialists", 8, "specialists to make up", 1, 64)
_PICTURE_WIDTH = define_number(
    "picture_width",
    640,
    "width of pictures to make up, in pixels; their height is 3/4 of it",
    1,
    5000,
)
_BENCHMARK = BenchmarkFlags("what is made up")


def main() -> None:
    """Measures, and prints a table."""
    if _RUN.given:
        dataset = _RUN.dataset()
        specialists = single_specialists(_RUN.run_dir, dataset.verticals)
        student = open_stage(_RUN.run_dir / STUDENT)
        subjects = subjects_of_run(
            dataset,
            student.directory / "model",
            [stage.directory / "model" for stage in specialists],
            _BATCH_SIZE.value,
        )
    else:
        subjects = made_up_subjects(
            batch_size=_BATCH_SIZE.value,
            specialists=_SPECIALISTS.value,
            picture_width=_PICTURE_WIDTH.value,
            seed=_BENCHMARK.seed,
        )
    seconds = measure_serving(subjects, _ROUNDS.value)
    rows, ratios = figures_of(seconds, subjects)
    title = "Bytes to embeddings by a student, and by the specialists it replaces"
    _BENCHMARK.tell(table(title, rows, ratios), {**ratios, "rows": rows})


if __name__ == "__main__":
    app.run(main)
