"""The last lines that binaries print: where their output is, and what to run next."""

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
    """Returns a command line, quoted for the shell.

    Args:
      program: path of a Python program, or name of an installed one.
      **given: values of its flags; those that are None are left out.
    """
    start = f"python {program}" if program.endswith(".py") else program
    flags = (
        f"--{name}={shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )
    return " ".join([start, *flags])


def training_command(manifest: object) -> str:
    """Returns the README's command that trains on a manifest from a pretrained backbone.

    Args:
      manifest: its path. From random weights, a few hundred photographs teach a model little.
    """
    return command(
        "tools/run_pipeline.py",
        manifest=manifest,
        run_dir="runs/mine",
        backbone="efficientnet_v2_b0",
        init_weights="efficientnetv2_b0_imagenet",
    )


def print_summary(rows: Iterable[tuple[str, object]]) -> None:
    """Prints rows of names and values, aligned.

    Args:
      rows: e.g. `("Report", path)`; the last is usually `("Next", command(...))`. Commands
        that begin with `python`, `tensorboard` or `apparel_embed` are printed so that they run in
        the user's shell, once the placeholders in <> are filled in.
    """
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        print(f"{name + ':':{width}} {_runnable(as_called(str(value)))}")


def _runnable(line: str) -> str:
    """Returns a command with its program's path if the shell would otherwise run another one."""
    program, _, rest = line.partition(" ")
    if program not in ("python", "tensorboard", COMMAND):
        return line
    script, blank, flags = rest.partition(" ")
    sibling = Path(sys.argv[0]).parent / Path(script).name
    # Called from outside the clone: look next to the running program.
    if program == "python" and not Path(script).exists() and sibling.is_file():
        rest = f"{shlex.quote(str(sibling))}{blank}{flags}"
        line = f"{program} {rest}"
    installed = Path(sys.executable).parent / program
    if not installed.exists() or shutil.which(program) == str(installed):
        return line
    relative = os.path.relpath(installed)
    path = str(installed) if relative.startswith("..") else relative
    return f"{shlex.quote(path)} {rest}"


def training_rows(stage: Stage) -> list[tuple[str, object]]:
    """Returns the rows that `print_summary` prints after a training."""
    score = stage.result["validation_r_at_1"]
    validated = "" if score is None else f", validation R@1 {score:.3f}"
    return [
        ("Model", stage.directory / "model"),
        ("Kept", f"step {stage.result['kept_step']}{validated}"),
        ("TensorBoard", command("tensorboard", logdir=stage.directory.parent)),
    ]
