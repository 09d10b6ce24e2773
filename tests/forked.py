"""Runs scripts in processes forked from one that has imported TensorFlow, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def forked(work: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    """Starts a function of a module in a forked process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["apparel_embed.runs.pipeline"])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def run_script(
    script: str | Path, *arguments: object, cwd: str | Path = "."
) -> subprocess.CompletedProcess[str]:
    """Runs a Python file in a directory, like `python <script> <arguments>`."""
    given = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as directory:
        paths = [os.path.join(directory, name) for name in ("stdout", "stderr")]
        process = forked(_run, given, paths, dict(os.environ), os.path.abspath(cwd))
        process.join()
        texts = [Path(path).read_text("utf-8") for path in paths]
    return subprocess.CompletedProcess(given, process.exitcode, *texts)


def _run(
    arguments: Sequence[str], outputs: Sequence[str], environment: Mapping[str, str], where: str
) -> None:
    for descriptor, path in zip((1, 2), outputs):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(where)
    sys.argv[:] = arguments
    sys.path.insert(0, os.path.dirname(os.path.realpath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")
