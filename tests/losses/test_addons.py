import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import apparel_embed
from apparel_embed.losses.addons import addons_semi_hard_triplet_loss


def test_value_worked_out_by_hand():
    # On a line. From 0: positive 1, the nearest farther negative at 1.5; from 1: positive 1, the
    # only negative nearer, at 0.5.
    embeddings = np.array([[0.0], [1.0], [1.5]], np.float32)
    loss = addons_semi_hard_triplet_loss(np.array([0, 0, 1]), embeddings, 0.75, "L2")
    assert float(loss) == pytest.approx((0.25 + 1.25) / 2, abs=1e-5)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_one_module_imports_tensorflow_addons():
    package = Path(apparel_embed.__file__).parent
    sources = [*package.rglob("*.py"), *(package.parent / "tools").glob("*.py")]
    users = [
        path.relative_to(package).as_posix()
        for path in sources
        if any(name.split(".")[0] == "tensorflow_addons" for name in imports(path))
    ]
    assert users == ["losses/addons.py"]


@pytest.mark.slow
def test_importing_it_prints_no_warning():
    script = "import apparel_embed.losses.addons"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Warning" not in done.stderr
    assert "Addons" not in done.stderr
    assert done.stdout == ""
