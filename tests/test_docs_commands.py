"""Commands in the README and in docs name existing binaries, flags and files."""

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs_blocks import PAGES, ROOT, all_blocks
from docs_running import TOOL

from apparel_embed.cli.binaries import flag_file

BLOCKS = all_blocks()
# Flags that absl adds to every binary.
OF_ABSL = {"flagfile", "help", "helpfull", "helpshort", "undefok", "verbosity"}
# Flags of other programs that the text mentions.
OF_OTHERS = {"logdir", "name", "memory-limit"}

# One process for all binaries, since each would load TensorFlow again.
FLAGS = """
import json, runpy, sys
from absl import flags
import apparel_embed.runs.pipeline  # Defines the flags of libraries first, which are not ours.

found = {}
for tool in sys.argv[1:]:
    before = set(flags.FLAGS)
    runpy.run_path(tool)
    names = set(flags.FLAGS) - before
    found[tool] = {name: flags.FLAGS[name].boolean for name in sorted(names)}
    for name in names:
        delattr(flags.FLAGS, name)
print(json.dumps(found))
"""


def command_lines():
    """Yields the page and the words of every line of code."""
    for block in BLOCKS:
        if block.language != "python":
            for line in block.code.replace("\\\n", " ").splitlines():
                yield str(block), shlex.split(line, comments=True)
    for page in PAGES:
        # Fences are blocks, and their backticks would pair with those of the text.
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.M)
        indented = re.findall(r"^ {4}((?:\.venv/bin/)?python (?:.*\\\n)*.*)$", text, re.M)
        for code in [*indented, *re.findall(r"`([^`]+)`", text)]:
            try:
                yield page.name, shlex.split(code.replace("\\\n", " "))
            except ValueError:
                # Not a command: code with an unmatched quote.
                continue


COMMANDS = list(command_lines())


def calls_of(words):
    """Returns (tool, flags) for each binary that a command line calls."""
    calls = []
    for word in words:
        named = TOOL.search(word)
        if named:
            calls.append((named[1], []))
        elif calls and word.startswith("--") and word != "--":
            calls[-1][1].append(re.split(r"[=\s]", word[2:], maxsplit=1)[0])
    return calls


def is_known(flag, flags):
    return flag in OF_ABSL or flag in flags or (flag[:2] == "no" and flags.get(flag[2:], False))


@pytest.fixture(scope="module")
def flags_of():
    """The flags of each binary, and whether they are boolean."""
    tools = sorted((ROOT / "tools").glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", FLAGS, *map(str, tools)],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {Path(tool).stem: flags for tool, flags in found.items()}


def test_commands_are_found():
    tools = [tool for _, words in COMMANDS for tool, _ in calls_of(words)]
    assert len(tools) > 20
    assert {"run_pipeline", "import_dataset", "serve_search"} <= set(tools)


def test_every_command_names_an_existing_binary_and_its_flags(flags_of):
    wrong = []
    for page, words in COMMANDS:
        for tool, flags in calls_of(words):
            if tool not in flags_of:
                wrong.append(f"{page}: no tools/{tool}.py")
                continue
            unknown = [flag for flag in flags if not is_known(flag, flags_of[tool])]
            wrong += [f"{page}: tools/{tool}.py has no --{flag}" for flag in unknown]
    assert wrong == []


def test_every_flag_in_the_text_belongs_to_a_binary(flags_of):
    everything = {}
    for flags in flags_of.values():
        for name, is_boolean in flags.items():
            # The same name may be a boolean flag of one binary and a path of another.
            everything[name] = everything.get(name, False) or is_boolean
    wrong = []
    for page, words in COMMANDS:
        if words and words[0].startswith("--"):
            given = [re.split(r"[=\s]", word[2:], maxsplit=1)[0] for word in words]
            flags = [name for word, name in zip(words, given) if word.startswith("--")]
            wrong += [
                f"{page}: --{flag}"
                for flag in flags
                # `--augment_*` stands for several flags.
                if flag not in OF_OTHERS
                and not is_known(flag, everything)
                and not (flag.endswith("*") and any(n.startswith(flag[:-1]) for n in everything))
            ]
    assert wrong == []


def test_every_named_flag_file_exists():
    for page, words in COMMANDS:
        for word in words:
            if word.startswith("--flagfile=") and "<" not in word:
                assert (ROOT / flag_file(word.partition("=")[2])).is_file(), (page, word)


def test_every_named_make_target_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = {
        word
        for _, words in COMMANDS
        if words and words[0] == "make"
        for word in words[1:]
        if "=" not in word and not word.startswith("-")
    }
    assert {"quickstart", "test"} <= named
    assert named - targets == set()


def test_the_site_contains_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(nav)))
    generated = {name for name in listed if name.startswith("reference/")} | {"changes.md"}
    assert listed - generated == {page.name for page in PAGES[1:]}


PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_blocks_compile_and_import_existing_names(block):
    if "losses.keras3" in block.code:
        pytest.importorskip("keras", "3.0", reason="needs Keras 3")
    for node in ast.walk(ast.parse(block.code, str(block))):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{block}: {node.module}.{name.name}"
