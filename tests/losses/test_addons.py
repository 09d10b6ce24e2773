import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from addons_losses import CASES, computed, needs_addons, stored
from loss_batches import value_and_gradient

import apparel_embed
from apparel_embed.losses import addons
from apparel_embed.losses.addons import AddonsLossConfig, addons_semi_hard_triplet_loss
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

LOSSES = {
    "triplet_semihard_loss": semi_hard_triplet_loss,
    "triplet_hard_loss": hard_triplet_loss,
    "lifted_struct_loss": lifted_structure_loss,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_losses_have_the_stored_values_and_gradients_of_addons(case):
    labels, embeddings, expected, expected_gradient = stored()[case.key]
    value, gradient = value_and_gradient(
        lambda *batch: LOSSES[case.loss](*batch, *case.arguments), labels, embeddings
    )
    assert expected > 0
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@needs_addons
def test_stored_values_are_those_that_addons_computes():
    for case in CASES:
        labels, embeddings, *expected = stored()[case.key]
        for array, one in zip(computed(case, labels, embeddings), expected):
            np.testing.assert_allclose(array, one, rtol=1e-5, atol=1e-6)


def test_without_addons_its_loss_is_refused_by_the_configuration(monkeypatch):
    monkeypatch.setattr(addons, "has_addons", lambda: False)
    with pytest.raises(ValueError, match="'tfa_semi_hard' needs TensorFlow Addons, which is not"):
        AddonsLossConfig("tfa_semi_hard")


@needs_addons
def test_value_matches_a_hand_computed_example():
    # Points on a line. From 0: positive at 1, nearest farther negative at 1.5. From 1: positive at
    # 1, the only negative is nearer, at 0.5.
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


@needs_addons
@pytest.mark.slow
def test_importing_addons_prints_no_warning():
    script = (
        "from apparel_embed.losses.addons import addons_semi_hard_triplet_loss as loss\n"
        "assert float(loss([0, 0, 1], [[0.0], [1.0], [1.5]], 0.75, 'L2')) > 0"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Warning" not in done.stderr
    assert "Addons" not in done.stderr
    assert done.stdout == ""
