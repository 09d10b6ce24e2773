import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import apparel_embed
from apparel_embed.losses.triplet import triplet_semihard_loss


def reference(labels, embeddings, margin):
    """The definition, pair by pair."""
    count = len(labels)
    distance = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    losses = []
    for a in range(count):
        negatives = [distance[a, n] for n in range(count) if labels[n] != labels[a]]
        for p in range(count):
            if p == a or labels[p] != labels[a]:
                continue
            farther = [d for d in negatives if d > distance[a, p]]
            negative = min(farther) if farther else max(negatives)
            losses.append(max(0.0, margin + distance[a, p] - negative))
    return np.mean(losses)


def on_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_value_worked_out_by_hand():
    # d(0, 60) = 1; the only negative of either is at 180: d = 2 and d(60, 180) = sqrt(3).
    embeddings = on_circle(0, 60, 180)
    loss = triplet_semihard_loss(margin=1.2)(np.array([0, 0, 1]), embeddings)
    assert float(loss) == pytest.approx((0.2 + (2.2 - 3**0.5)) / 2, abs=1e-5)


def test_nearest_of_the_farther_negatives_is_taken():
    # From 0: positive at distance 1, negatives nearer (30), farther (90: sqrt 2) and farthest.
    # From 60: positive at 1, negatives 30 and 90 nearer, 180 farther: sqrt 3.
    embeddings = on_circle(0, 60, 30, 90, 180)
    loss = triplet_semihard_loss(margin=0.8)(np.array([0, 0, 1, 2, 3]), embeddings)
    expected = (1.8 - 2**0.5 + 1.8 - 3**0.5) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_farthest_negative_is_taken_where_none_is_farther_than_the_positive():
    embeddings = on_circle(0, 180, 60)
    loss = triplet_semihard_loss(margin=0.5)(np.array([7, 7, 9]), embeddings)
    expected = ((2.5 - 1) + (2.5 - 3**0.5)) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(2, 4), st.integers(2, 3), st.floats(0.05, 1.5))
def test_agrees_with_the_definition(seed, items, pictures, margin):
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(items * pictures, 5)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = random.permutation(np.repeat(np.arange(items), pictures))
    loss = float(triplet_semihard_loss(margin)(labels, embeddings))
    assert loss == pytest.approx(reference(labels, embeddings, margin), abs=1e-4)


def test_is_zero_where_items_are_far_apart_and_has_a_gradient_where_not():
    labels = np.array([0, 0, 1, 1])
    loss = triplet_semihard_loss(margin=0.3)
    assert float(loss(labels, on_circle(0, 1, 180, 181))) == 0
    embeddings = tf.Variable(on_circle(0, 40, 20, 60))
    with tf.GradientTape() as tape:
        value = loss(labels, embeddings)
    gradient = tape.gradient(value, embeddings).numpy()
    assert np.isfinite(gradient).all()
    assert float(loss(labels, tf.math.l2_normalize(embeddings - 0.05 * gradient, axis=-1))) < value


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
    assert users == ["losses/triplet.py"]


def test_importing_it_prints_no_warning():
    script = "import apparel_embed.losses.triplet"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Warning" not in done.stderr
    assert "Addons" not in done.stderr
    assert done.stdout == ""
