import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import apparel_embed

TOOLS = sorted((Path(__file__).parents[1] / "tools").glob("*.py"))
# Packages that take too long to import for --help.
HEAVY = {
    *("tensorflow", "keras", "keras_cv", "tensorflow_addons", "tensorboard", "pandas", "scipy"),
    *("sklearn", "matplotlib", "fastapi", "starlette", "uvicorn", "pymilvus", "distributed"),
}


def test_all_public_names_exist_sorted_and_listed():
    assert sorted(apparel_embed.__all__) == apparel_embed.__all__
    for name in apparel_embed.__all__:
        assert getattr(apparel_embed, name).__name__ == name
    assert set(apparel_embed.__all__) <= set(dir(apparel_embed))


def test_type_checkers_and_python_import_each_name_from_the_same_module():
    for name in apparel_embed.__all__:
        module = getattr(apparel_embed, name).__module__
        assert module == f"apparel_embed.{apparel_embed._MODULE_OF[name]}"
        assert hasattr(importlib.import_module(module), name)
    assert set(apparel_embed._MODULE_OF) == set(apparel_embed.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Specialist'"):
        _ = apparel_embed.Specialist


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import apparel_embed; dir(apparel_embed); apparel_embed.__version__", set()),
        ("from apparel_embed import UserError", set()),
        ("from apparel_embed import load_prepared, PrepareConfig, prepare", {"numpy", "pyarrow"}),
        ("from apparel_embed import Client; Client('http://localhost:8501').close()", {"numpy"}),
        ("from apparel_embed.serving import ServerUnavailable, to_servable", {"numpy"}),
    ],
)
def test_names_that_do_not_need_tensorflow_do_not_import_it(code, allowed):
    heavy = {"tensorflow", "keras_cv", "numpy", "pyarrow", "matplotlib", "sklearn", "absl"}
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = heavy & set(json.loads(done.stdout.splitlines()[-1]))
    assert found - {"absl"} <= allowed


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_binaries_import_nothing_slow_before_parsing_their_flags(tool):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", tool, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"^import time:.*\|\s+([^\s.]+)$", done.stderr, re.MULTILINE)
    assert {"absl", "apparel_embed"} <= set(found)
    assert not HEAVY & set(found)
