"""Other processes that benchmarks start, and environments of their own for some."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.common.errors import UserError


class ProcessFailed(Exception):
    """A process could not start, or ended with another status than 0; the text says why.

    That is its last line, or the status. A process that was killed had no last word.
    """


def run_json(command: Sequence[str], task: object) -> Any:
    """Runs a process that is given JSON and prints JSON.

    Args:
      command: what to run; the task is its last argument.
      task: JSON values.

    Returns:
      What its last line is as JSON.

    Raises:
      ProcessFailed: if it cannot start, or ends with another status than 0.
    """
    return json.loads(_run([*command, json.dumps(task)]).splitlines()[-1])


def run_module(name: str, task: object) -> Any:
    """Runs a module of the benchmarks as a process of its own; see `run_json`."""
    return run_json([sys.executable, "-m", f"apparel_embed.benchmarks.{name}"], task)


def environment_with(directory: Path, packages: Sequence[str], advice: str = "") -> Path:
    """Makes a virtual environment with packages, unless it is there with the same ones.

    Args:
      directory: of the environment; what is in it is removed where it is made anew.
      packages: as pip takes them, the one it is for first.
      advice: what else can be done where they cannot be installed.

    Returns:
      The directory of its programs.

    Raises:
      UserError: if they cannot be installed, or the directory holds something else.
    """
    programs, marker = directory / "bin", directory / "installed"
    wanted = "".join(f"{package}\n" for package in packages)
    if not marker.exists() or marker.read_text("utf-8") != wanted:
        if directory.exists() and any(directory.iterdir()) and not _is_environment(directory):
            raise UserError(
                f"{directory}: holds something else than a virtual environment; name another "
                "directory, or an empty one"
            )
        logging.info("installing %s into %s", packages[0], directory)
        try:
            venv.create(directory, with_pip=True, clear=True)
            _run([str(programs / "python"), "-m", "pip", "install", "--quiet", *packages])
        except (OSError, subprocess.CalledProcessError, ProcessFailed) as error:
            raise UserError(
                f"{packages[0]} could not be installed into {directory}: {error}"
                + (f"; {advice}" if advice else "")
            ) from error
        marker.write_text(wanted, "utf-8")
    return programs


def _is_environment(directory: Path) -> bool:
    return (directory / "pyvenv.cfg").exists()


def _run(command: Sequence[str]) -> str:
    """Returns what a process prints."""
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise ProcessFailed(str(error)) from error
    with process:
        # Where memory runs out, Linux is to end this process and not the one that waits for it.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        printed, said = process.communicate()
    if process.returncode == -signal.SIGKILL:
        raise ProcessFailed("killed, as a process is where memory runs out")
    if process.returncode:
        lines = said.strip().splitlines() or [f"exit status {process.returncode}"]
        raise ProcessFailed(lines[-1])
    return printed
