"""How binaries end: where what they wrote is, and what to run next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from apparel_embed.cli.binaries import COMMAND, as_called
from apparel_embed.store.record import Stage

NOTHING_WRITTEN = ("Next", "the same command without --dry_run (nothing was written)")


def command(program: str, **given: object) -> str:
    """Returns a command that a shell takes as it is meant, whatever is in paths.

    Args:
      program: path of a Python program, or name of one that is installed.
      **given: values of its flags; those that are None are left out.
    """
    start = f"python {program}" if program.endswith(".py") else program
    flags = (
        f"--{name}={shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )
    return " ".join([start, *flags])


def training_command(manifest: object) -> str:
    """Returns the command of the README that trains on a manifest, from a pretrained backbone.

    Args:
      manifest: its path. Without initial weights some hundred photographs teach a model little.
    """
    return command(
        "tools/run_pipeline.py",
        manifest=manifest,
        run_dir="runs/mine",
        backbone="efficientnet_v2_b0",
        init_weights="efficientnetv2_b0_imagenet",
    )


def print_summary(rows: Iterable[tuple[str, object]]) -> None:
    """Prints names and what they name, one below the other.

    Args:
      rows: e.g. `("Report", path)`; the last is usually `("Next", command(...))`. Commands
        that begin with `python`, `tensorboard` or `apparel_embed` are printed so that they run in
        the reader's shell, once what is in <> is filled in.
    """
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        print(f"{name + ':':{width}} {_as_to_type(as_called(str(value)))}")


def _as_to_type(line: str) -> str:
    """Returns a command with the path of its program, where the shell would take another one."""
    program, _, rest = line.partition(" ")
    if program not in ("python", "tensorboard", COMMAND):
        return line
    script, blank, flags = rest.partition(" ")
    beside = Path(sys.argv[0]).parent / Path(script).name
    # From outside the clone, where the running program is.
    if program == "python" and not Path(script).exists() and beside.is_file():
        rest = f"{shlex.quote(str(beside))}{blank}{flags}"
        line = f"{program} {rest}"
    ours = Path(sys.executable).parent / program
    if not ours.exists() or shutil.which(program) == str(ours):
        return line
    with_path = os.path.relpath(ours)
    path = str(ours) if with_path.startswith("..") else with_path
    return f"{shlex.quote(path)} {rest}"


def training_rows(stage: Stage) -> list[tuple[str, object]]:
    """Returns what a training ends with, as `print_summary` takes it."""
    score = stage.result["validation_r_at_1"]
    validated = "" if score is None else f", validation R@1 {score:.3f}"
    return [
        ("Model", stage.directory / "model"),
        ("Kept", f"step {stage.result['kept_step']}{validated}"),
        ("TensorBoard", command("tensorboard", logdir=stage.directory.parent)),
    ]
