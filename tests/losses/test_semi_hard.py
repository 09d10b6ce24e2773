import numpy as np
import pytest
import tensorflow as tf
from addons_losses import METRICS, needs_addons
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import TIED, UNTIED, batches, make_batch, value_and_gradient

from apparel_embed.losses import semi_hard
from apparel_embed.losses.addons import addons_semi_hard_triplet_loss
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss

MARGINS = st.sampled_from([0.01, 0.3, 1.0, 5.0])


def absolute_products(embeddings):
    return tf.abs(tf.matmul(embeddings, embeddings, transpose_b=True))


def ours(margin=1.0, metric="L2"):
    return lambda labels, embeddings: semi_hard_triplet_loss(labels, embeddings, margin, metric)


def addons(margin=1.0, metric="L2"):
    return lambda labels, embeddings: addons_semi_hard_triplet_loss(
        labels, embeddings, margin, metric
    )


def reference(labels, distance, margin):
    """Returns the loss by its definition, pair by pair, and its gradient w.r.t. distances."""
    losses, gradient = [], np.zeros_like(distance)
    for a, p in np.argwhere(labels[:, None] == labels):
        if a != p:
            negatives = np.where(labels != labels[a], distance[a], np.nan)
            farther = negatives[negatives > distance[a, p]]
            negative = farther.min() if farther.size else np.nanmax(negatives)
            losses.append(max(0.0, margin + distance[a, p] - negative))
            if margin + distance[a, p] >= negative:
                gradient[a, p] += 1
                gradient[a] -= (negatives == negative) / np.sum(negatives == negative)
    return np.mean(losses), gradient / len(losses)


def distances_of(embeddings):
    return np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)


def assert_agrees_where_addons_is_finite(batch, margin, metric, tied=False):
    """Compares with TFA, except the gradient of tied distances, which TFA gives to positives."""
    labels, embeddings = batch
    value, gradient = value_and_gradient(ours(margin, metric), labels, embeddings)
    expected, expected_gradient = value_and_gradient(addons(margin, metric), labels, embeddings)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if np.isfinite(expected):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    if np.isfinite(expected_gradient).all() and not tied:
        # Normalising near-zero vectors scales gradients up by as much as a million.
        greatest = np.abs(expected_gradient).max(initial=1.0)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5 * greatest)


def cases(**sizes):
    """Batches, metrics, and whether distances tie, without ties that depend on rounding."""
    untied = st.sampled_from([*METRICS, absolute_products])
    tied = st.sampled_from(["L2", "squared-L2", absolute_products])
    return st.one_of(
        st.tuples(batches(UNTIED, **sizes), untied, st.just(False)),
        st.tuples(batches(TIED, **sizes), tied, st.just(True)),
    )


@needs_addons
@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=80)
@given(cases(), MARGINS)
def test_value_and_gradient_equal_those_of_addons(case, margin):
    batch, metric, tied = case
    assert_agrees_where_addons_is_finite(batch, margin, metric, tied)


@needs_addons
@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=80)
@given(cases(sizes=range(1, 41)), st.floats(0.0, 8.0))
def test_value_and_gradient_equal_those_of_addons_without_compilation(case, margin):
    batch, metric, tied = case
    # As on a GPU. Any batch size and margin, as none of them costs a compilation.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
        assert_agrees_where_addons_is_finite(batch, margin, metric, tied)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**31 - 1), st.sampled_from([2, 3, 8]), st.sampled_from([0.5, 1.0, 2.0]))
def test_negatives_at_the_same_distance_share_the_gradient_equally(seed, items, margin):
    random = np.random.default_rng(seed)
    labels = np.append(random.integers(0, items, 10), [0, 1])
    distances = random.integers(0, 5, (12, 12)).astype(np.float32)
    value, gradient = value_and_gradient(ours(margin, tf.identity), labels, distances)
    expected, expected_gradient = reference(labels, distances, margin)
    assert value == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


# Products of other shapes round differently. These batches have either no two almost equal
# distances, or products without rounding.
BLOCK_CASES = st.one_of(
    st.tuples(batches(("normal", "clusters"), sizes=(33,), dims=(7,)), st.sampled_from(METRICS)),
    st.tuples(batches(("grid",), sizes=(33,), dims=(7,)), st.sampled_from(["L2", "squared-L2"])),
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=40)
@given(BLOCK_CASES, MARGINS, st.sampled_from([1, 100, 231, 33 * 32]))
def test_blocks_of_rows_add_up_to_the_whole(case, margin, block_size):
    # One row at a time; three; seven, where the last block overlaps; all rows except one.
    batch, metric = case
    whole = value_and_gradient(ours(margin, metric), *batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semi_hard, "_BLOCK_SIZE", block_size)
        patch.setattr(semi_hard, "_LEAST_ROWS", 1)
        value, gradient = value_and_gradient(ours(margin, metric), *batch)
    np.testing.assert_allclose(value, whole[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, whole[1], rtol=0, atol=1e-5 * max(1, abs(gradient).max()))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(batches(kinds=("normal", "unit"), sizes=(12,)), MARGINS)
def test_value_matches_the_definition(batch, margin):
    labels, embeddings = batch
    counts = np.unique(labels, return_counts=True)[1]
    if counts.max() > 1 and len(counts) > 1:
        value = float(semi_hard_triplet_loss(labels, embeddings, margin))
        expected, _ = reference(labels, distances_of(embeddings), margin)
        assert value == pytest.approx(expected, abs=1e-5)


@needs_addons
@pytest.mark.slow
def test_distances_that_rounding_in_addons_makes_equal_share_the_gradient():
    # 1e-9 and 2e-9 vanish next to the greatest distance, so the second negative counts, too.
    labels = np.array([0, 0, 1, 2, 3])
    for to_positive in (0.5e-9, 0.9e-9):
        distances = np.full((5, 5), 1.0, np.float32)
        distances[0] = [0.0, to_positive, 1e-9, 2e-9, 1.0]
        value, gradient = value_and_gradient(ours(1.0, tf.identity), labels, distances)
        assert value == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(gradient[0, 2:], [-0.25, -0.25, 0.0])
        assert_agrees_where_addons_is_finite((labels, distances), 1.0, tf.identity, tied=True)


@needs_addons
@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("images", [1, 2, 11, 12, 13, 16, 17, 18, 33, 96])
def test_items_with_any_number_of_images(images, metric):
    # 11 positives of an anchor are processed per iteration.
    _, embeddings = make_batch(images, 96, 1, 5, "unit")
    labels = np.random.default_rng(0).permutation(np.arange(96) // images)
    assert_agrees_where_addons_is_finite((labels, embeddings), 0.4, metric)


def on_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_value_matches_a_hand_computed_example():
    # d(0, 60) = 1; the only negative of both is at 180: d(0, 180) = 2, d(60, 180) = sqrt(3).
    value = semi_hard_triplet_loss(np.array([0, 0, 1]), on_circle(0, 60, 180), margin=1.2)
    assert float(value) == pytest.approx((0.2 + (2.2 - 3**0.5)) / 2, abs=1e-5)


def test_the_nearest_farther_negative_is_used():
    # From 0: positive at distance 1, negatives nearer (30), farther (90: sqrt 2) and farthest.
    # From 60: positive at 1, negatives 30 and 90 nearer, 180 farther: sqrt 3.
    embeddings = on_circle(0, 60, 30, 90, 180)
    value = semi_hard_triplet_loss(np.array([0, 0, 1, 2, 3]), embeddings, margin=0.8)
    assert float(value) == pytest.approx((1.8 - 2**0.5 + 1.8 - 3**0.5) / 2, abs=1e-5)


def test_the_farthest_negative_is_used_if_none_is_farther_than_the_positive():
    embeddings = on_circle(0, 180, 60)
    value = semi_hard_triplet_loss(np.array([7, 7, 9]), embeddings, margin=0.5)
    assert float(value) == pytest.approx(((2.5 - 1) + (2.5 - 3**0.5)) / 2, abs=1e-5)


def test_the_loss_is_zero_for_distant_items_and_falls_along_its_gradient_otherwise():
    labels = np.array([0, 0, 1, 1])
    assert float(semi_hard_triplet_loss(labels, on_circle(0, 1, 180, 181), 0.3)) == 0
    embeddings = on_circle(0, 40, 20, 60)
    value, gradient = value_and_gradient(ours(0.3), labels, embeddings)
    assert float(ours(0.3)(labels, embeddings - 0.05 * gradient)) < value


NOTHING_TO_LEARN = {
    "all distinct": (np.arange(6), np.eye(6, 3, dtype=np.float32)),
    "one image": (np.zeros(1, int), np.ones((1, 3), np.float32)),
    "one zero vector": (np.zeros(1, int), np.zeros((1, 3), np.float32)),
    "no image": (np.zeros(0, int), np.zeros((0, 3), np.float32)),
}


@pytest.mark.parametrize("metric", [*METRICS, absolute_products])
@pytest.mark.parametrize("batch", NOTHING_TO_LEARN.values(), ids=NOTHING_TO_LEARN.keys())
def test_a_batch_without_positives_gives_0_and_a_gradient_of_0(batch, metric):
    value, gradient = value_and_gradient(ours(1.0, metric), *batch)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("vector", [[0.0, 0.0], [0.6, 0.8], [1e-30, 1e-30]])
@pytest.mark.parametrize("items", [1, 4])
def test_identical_images_and_zero_vectors_give_the_margin_and_a_finite_gradient(
    metric, vector, items
):
    embeddings = np.tile(np.array(vector, np.float32), (8, 1))
    value, gradient = value_and_gradient(ours(0.5, metric), np.arange(8) % items, embeddings)
    assert value == pytest.approx(0.5, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_a_single_item_is_pulled_together():
    labels, (_, embeddings) = np.zeros(12, int), make_batch(0, 12, 1, 4, "unit")
    value, gradient = value_and_gradient(ours(0.5), labels, embeddings)
    assert value == pytest.approx(0.5 + distances_of(embeddings).sum() / (12 * 11), abs=1e-5)
    assert float(ours(0.5)(labels, embeddings - 0.01 * gradient)) < value


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_embeddings_are_computed_in_float32(kind):
    labels, embeddings = make_batch(5, 33, 8, 7, "unit")
    half = tf.cast(embeddings, kind)
    value, gradient = value_and_gradient(ours(0.3), labels, half)
    expected, expected_gradient = value_and_gradient(ours(0.3), labels, tf.cast(half, tf.float32))
    assert value.dtype == gradient.dtype == half.dtype
    # Rounded only at the end.
    assert float(value) == float(tf.cast(expected, kind))
    np.testing.assert_array_equal(
        gradient.astype(np.float32), tf.cast(tf.cast(expected_gradient, kind), tf.float32)
    )


def test_float16_neither_overflows_nor_loses_small_distances():
    # Squared lengths of 90,000 are beyond float16, whose maximum is 65,504.
    embeddings = tf.constant([[300.0, 0.0], [300.25, 0.0], [301.0, 0.0]], tf.float16)
    value, gradient = value_and_gradient(ours(1.0), np.array([0, 0, 1]), embeddings)
    assert float(value) == pytest.approx((0.25 + 0.5) / 2, abs=1e-3)
    assert np.isfinite(gradient).all()


def test_float64_stays_float64():
    labels, embeddings = make_batch(6, 12, 3, 4, "unit")
    value, gradient = value_and_gradient(ours(0.3), labels, embeddings.astype(np.float64))
    assert value.dtype == gradient.dtype == np.float64
    expected, _ = reference(labels, distances_of(embeddings.astype(np.float64)), 0.3)
    assert value == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_embedding_gives_nan(bad):
    labels, embeddings = make_batch(7, 12, 3, 4, "unit")
    embeddings[4, 1] = bad
    assert np.isnan(semi_hard_triplet_loss(labels, embeddings))


def test_labels_may_be_columns_integers_floats_or_strings():
    labels, embeddings = make_batch(8, 12, 3, 4, "unit")
    expected = float(semi_hard_triplet_loss(labels, embeddings))
    for same in (
        labels[:, None],
        labels.astype(np.int8),
        (labels + 2**40).astype(np.int64),
        -labels.astype(np.float32),
        np.array([f"sku-{label}" for label in labels]),
    ):
        assert float(semi_hard_triplet_loss(same, embeddings)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("labels", "embeddings", "message"),
    [
        (np.zeros(3, int), np.zeros((4, 2), np.float32), r"\(3,\).*\(4, 2\)"),
        (np.zeros((4, 2), int), np.zeros((4, 2), np.float32), r"\[batch, 1\]"),
        (np.zeros(4, int), np.zeros((4, 2, 2), np.float32), r"\[batch, dim\]"),
        (np.zeros(4, int), np.zeros((4, 2), int), "floating-point"),
    ],
)
def test_wrong_shapes_and_types_give_an_error_with_the_expected_ones(labels, embeddings, message):
    with pytest.raises(ValueError, match=message):
        semi_hard_triplet_loss(labels, embeddings)


def test_an_unknown_distance_gives_an_error_with_the_valid_ones():
    labels, embeddings = make_batch(0, 5, 2, 2, "unit")
    with pytest.raises(
        ValueError, match="'cosine' is unknown; expected one of L2, squared-L2, angular"
    ):
        semi_hard_triplet_loss(labels, embeddings, 1.0, "cosine")


@pytest.mark.slow
@pytest.mark.parametrize("metric", [*METRICS, absolute_products])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_graph_takes_batches_of_any_size(metric, jit_compile):
    traced = []

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4])],
    )
    def step(labels, embeddings):
        traced.append(True)
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = semi_hard_triplet_loss(labels, embeddings, 0.3, metric)
        return value, tape.gradient(value, embeddings)

    for size in (1, 12, 33):
        labels, embeddings = make_batch(size, size, 4, 4, "unit")
        value, gradient = step(labels, embeddings)
        expected, expected_gradient = value_and_gradient(ours(0.3, metric), labels, embeddings)
        np.testing.assert_allclose(value, expected, atol=1e-6)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    assert len(traced) == 1


@pytest.mark.slow
def test_blocks_work_in_a_graph_of_any_batch_size_and_under_xla(monkeypatch):
    labels, embeddings = make_batch(3, 33, 8, 4, "unit")
    expected = semi_hard_triplet_loss(labels, embeddings, 0.3)
    monkeypatch.setattr(semi_hard, "_BLOCK_SIZE", 231)
    monkeypatch.setattr(semi_hard, "_LEAST_ROWS", 1)
    for jit_compile in (False, True):
        step = tf.function(
            lambda labels, embeddings: semi_hard_triplet_loss(labels, embeddings, 0.3),
            jit_compile=jit_compile,
            input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None])],
        )
        np.testing.assert_allclose(step(labels, embeddings), expected, atol=1e-6)
