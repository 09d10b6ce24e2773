"""Runs the commands of the README, of pages in `docs` and of recipes, each in its own process.

Binaries get flags that make their work tiny (TINY); nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from docs_blocks import ROOT, Block
from forked import run_script
from PIL import Image

TOOL = re.compile(r"(?:^|/)tools/(\w+)\.py$")
PYTHON = ("python", ".venv/bin/python")
MODEL = ["--backbone=small_cnn", "--init_weights=none", "--image_size=32", "--embedding_dim=8"]
TRIPLETS = ["--items_per_batch=3", "--images_per_item=2", "--specialist_steps=3"]
STUDENT = ["--student_steps=3", "--student_batch_size=8"]
FEW_LOOKS = ["--specialist_frozen_steps=0", "--validate_every=3"]
TINY = {
    # Product quantisation needs more images to train on.
    "measure_compression": ["--tflite=float16", "--embedding_kinds=float16,int8"],
    "prepare_dataset": ["--max_side=48", "--processes=1"],
    "run_pipeline": [
        "--max_side=48",
        "--processes=1",
        "--combined_steps=3",
        *MODEL,
        *TRIPLETS,
        *STUDENT,
        *FEW_LOOKS,
    ],
    "inspect_dataset": ["--processes=1"],
    "sweep_group_size": ["--sizes=3", "--seeds=0", *MODEL, *TRIPLETS, *STUDENT, *FEW_LOOKS],
    "train_specialist": [*MODEL, *TRIPLETS, *FEW_LOOKS],
    "train_student": [*MODEL, *STUDENT, "--validate_every=3"],
}
# Replacements in Python code, which has no flags.
SHORTER = {"steps=500": "steps=2"}
# Servers, which run until they are stopped, and the flag that picks a free port.
SERVERS = {"serve_search": "--port=0", "tensorboard": "--port=0"}


def make_photos(root: Path) -> None:
    """Draws `photos/<vertical>/<item>/<view>.jpg`: 3 verticals of 8 items with 4 images."""
    random = np.random.default_rng(0)
    for vertical in ("bag", "dress", "skirt"):
        for item in range(8):
            folder = root / "photos" / vertical / f"{vertical}{item}"
            folder.mkdir(parents=True)
            colour = random.integers(40, 216, 3)
            for view in range(4):
                noisy = random.normal(colour, 12, (48, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / f"{view}.jpg")


def enter(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes to `directory`, with `tools` and `flags` as in a clone."""
    for name in ("tools", "flags"):
        (directory / name).symlink_to(ROOT / name)
    monkeypatch.chdir(directory)
    search = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, search)))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


def tools_of(words: list[str]) -> list[str]:
    """Returns the names of the binaries in a command line, in order."""
    return [found[1] for word in words if (found := TOOL.search(word))]


def lines_of(code: str) -> list[list[str]]:
    """Returns the words of each command in shell code."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def execute(block: Block) -> None:
    """Runs a block's Python code, or its commands one by one."""
    if block.language == "python":
        code = block.code
        for written, shorter in SHORTER.items():
            code = code.replace(written, shorter)
        _run(str(block), [sys.executable, "-c", code])
        return
    for words in lines_of(block.code):
        execute_command(str(block), words)


def execute_command(where: str, words: list[str]) -> None:
    """Runs the words of a command line; `where` is its position, for messages."""
    tools = tools_of(words)
    if words[0] in PYTHON and tools:
        command = [sys.executable if word in PYTHON else word for word in words]
        command += TINY.get(tools[-1], [])
        name = tools[-1]
    else:
        name = Path(words[0]).name
        assert name in SERVERS, f"{where}: {words} cannot be tested"
        command = [str(Path(sys.executable).parent / name), *words[1:]]
    if name in SERVERS:
        _serve(where, [*command, SERVERS[name]])
    else:
        _run(where, command)


def _run(where: str, command: list[str]) -> None:
    if command[0] == sys.executable and TOOL.search(command[1]):
        done = run_script(*command[1:])
    else:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def _serve(where: str, command: list[str]) -> None:
    """Starts a server, and stops it once it prints its address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert any("http://" in line for line in process.stdout), f"{where}: {command}"
    finally:
        process.terminate()
        process.communicate()
