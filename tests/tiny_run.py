"""A complete tiny run, in processes that can be killed."""

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

from forked import forked, run_script

from apparel_embed.common.locks import lock_path

STAGES = (
    "synthetic",
    "prepared",
    "combined-start",
    "specialist-bag",
    "specialist-dress",
    "grouping-affinity",
    "targets",
    "student",
    "combined",
    "evaluation",
    "saved_model",
    "report",
    "summaries",
)
"""Directories of a run, in the order in which they are finished."""
PLANNED = (
    "synthetic",
    "prepared",
    "combined-start",
    "grouping-each",
    "specialist-bag",
    "specialist-dress",
    "targets",
    "student",
    "combined",
    "evaluation",
    "saved_model/1",
    "report",
    "summaries",
)
"""Stages of a plan with one group per vertical, in order."""


def config_of(run_dir):
    from apparel_embed.data.prepare import PrepareConfig
    from apparel_embed.data.synthetic.world import SyntheticConfig
    from apparel_embed.distillation.targets import TargetsConfig
    from apparel_embed.grouping.search import SearchConfig
    from apparel_embed.grouping.strategies import StrategyConfig
    from apparel_embed.losses.registry import LossConfig
    from apparel_embed.models.embedding import ModelConfig
    from apparel_embed.runs.config import PipelineConfig
    from apparel_embed.training.loop import LoopConfig
    from apparel_embed.training.settings import OptimizationConfig
    from apparel_embed.training.specialist import SpecialistConfig
    from apparel_embed.training.student import StudentConfig

    model = ModelConfig(image_size=32, embedding_dim=8)
    loop = LoopConfig(validate_every=6, checkpoint_every=4, log_every=1)
    return PipelineConfig(
        run_dir=run_dir,
        synthetic=SyntheticConfig(
            verticals=("dress", "bag"), train_items=6, val_items=3, test_items=4, image_size=48
        ),
        prepare=PrepareConfig("", run_dir / "prepared", shard_records=40),
        specialist=SpecialistConfig(
            model=model,
            optimization=OptimizationConfig(steps=24),
            items_per_batch=4,
            images_per_item=2,
            # Not the default, which is slow to compile in every process.
            loss=LossConfig("hard"),
            loop=loop,
        ),
        student=StudentConfig(
            model=model,
            optimization=OptimizationConfig(steps=24, frozen_steps=8),
            batch_size=8,
            loop=loop,
        ),
        combined_steps=12,
        targets=TargetsConfig(dim=8),
        grouping=SearchConfig(strategy=StrategyConfig(name="affinity")),
        measure_speed=False,
    )


def _walk(run_dir, log):
    """Runs the pipeline in its own process, and exits like the binary."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    from absl import logging

    from apparel_embed.common.errors import UserError
    from apparel_embed.common.interruption import stopped_by_sigterm
    from apparel_embed.runs.pipeline import run_pipeline

    logging.set_verbosity(logging.INFO)
    try:
        with stopped_by_sigterm():
            run_pipeline(config_of(run_dir))
    except UserError as error:
        sys.exit(str(error))


def start(run_dir):
    """Starts the run in a process forked from one that has imported TensorFlow."""
    return forked(_walk, run_dir, log_of(run_dir))


def wait_for(run_dir, stage, process, checkpoint=False):
    """Waits until a process is making a stage, has ended, or has found the stage finished.

    With `checkpoint`, also waits for a checkpoint of that process, which is then amid its steps.
    """
    lock = lock_path(run_dir / stage)
    began = time.time()
    while process.is_alive() and not (run_dir / stage).exists():
        time.sleep(0.002)
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads(lock.read_text())["process"] != process.pid:
                continue
            written = (run_dir / f"{stage}.partial" / "checkpoints").glob("step-*")
            if not checkpoint or any(path.stat().st_mtime > began for path in written):
                return


def log_of(run_dir):
    return run_dir.with_name(f"{run_dir.name}.log")


def walk(run_dir):
    """Runs the pipeline to its end."""
    process = start(run_dir)
    process.join()
    assert process.exitcode == 0, log_of(run_dir).read_text()[-3000:]


def contents(run_dir):
    """Returns all results of a run by file name, without times and durations."""
    from apparel_embed.report.trainings import read_scalars

    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if path.name == "stage.json":
            record = json.loads(path.read_text())
            for varies in ("seconds", "finished"):
                del record[varies]
            record["result"].pop("trained_seconds", None)
            found[name] = record
        elif path.name == "groups.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k == "groups"}
        elif path.name == "tensorboard":
            scalars = read_scalars(path, ("loss", "validation/r_at_1", "learning_rate"))
            found[name] = scalars
        elif path.suffix == ".h5":
            found[name] = _arrays(path)
        elif path.name == "summary.json":
            summary = json.loads(path.read_text())
            for cost in summary["training_costs"]:
                del cost["seconds"]
            found[name] = summary
        elif path.name == "tables.txt":
            found[name] = re.sub(r" +\d+:\d\d:\d\d", "", path.read_text())
        elif (
            path.is_file()
            and not path.name.startswith("events.")
            and "saved_model" not in path.parts
        ):
            found[name] = path.read_bytes()
    return found


def _arrays(path):
    """Returns the bytes of all arrays in an HDF5 file, by name."""
    import h5py

    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays


def duration(run_dir, stage):
    """Returns the seconds that a stage of a finished run took; 0.5 if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((run_dir / stage / "stage.json").read_text())["seconds"]
    return 0.5


def run_tool(tool, *arguments, cwd="."):
    """Runs a binary of tools/ in a directory, and returns the finished process with its output."""
    return run_script(Path(__file__).parents[1] / "tools" / tool, *arguments, cwd=cwd)
