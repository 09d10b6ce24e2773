r"""Times the served student against its parts and the specialists.

    python tools/benchmark_serving.py --run_dir=runs/mine --json

Without --run_dir it generates images and models with random weights, which are as fast as trained
ones. All are measured alternately in one process; ratios are of medians.
"""

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.serving_config import ServingBenchmark
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.store.names import STUDENT
from apparel_embed.store.record import open_stage

_RUN = RunFlags(optional="it has one specialist per vertical; by default models are generated")
_BENCHMARK = BenchmarkFlags(ServingBenchmark)


def main() -> None:
    """Runs the benchmark and prints a table."""
    from apparel_embed.benchmarks.serving import (
        figures_of,
        made_up_subjects,
        measure_serving,
        subjects_of_run,
    )
    from apparel_embed.runs.stages.specialist import single_specialists

    config = _BENCHMARK.config()
    if _RUN.given:
        run = _RUN.run()
        specialists = single_specialists(run)
        subjects = subjects_of_run(
            run.dataset,
            open_stage(_RUN.run_dir / STUDENT).directory / "model",
            [stage.directory / "model" for stage in specialists],
            config.batch_size,
        )
    else:
        subjects = made_up_subjects(config)
    rows, ratios = figures_of(measure_serving(subjects, config.rounds), subjects)
    title = "Bytes to embeddings with a student, and with the specialists it replaces"
    _BENCHMARK.print_results(table(title, rows, ratios), {**ratios, "rows": rows})


if __name__ == "__main__":
    app.run(main)
