import numpy as np
import pytest

from apparel_embed.errors import UserError
from apparel_embed.evaluation.protocol import EvaluationSet, query_outcomes, summary_rows
from apparel_embed.evaluation.retrieval import evaluate_retrieval


@pytest.fixture
def pictures():
    """120 pictures of 2 verticals, 10 items each, of which one has a single picture."""
    random = np.random.default_rng(0)
    items = np.repeat([f"item{i:02}" for i in range(20)], 6)
    items[0] = "single"
    verticals = np.where(np.arange(120) < 60, "bag", "dress")
    embeddings = np.repeat(random.normal(size=(20, 8)), 6, axis=0) + random.normal(size=(120, 8))
    return embeddings, items, verticals


@pytest.mark.parametrize("scope", ["within", "merged"])
def test_metrics_and_intervals_are_those_of_the_pipeline(pictures, scope):
    embeddings, items, verticals = pictures
    is_query = np.arange(120) % 3 == 0
    found = evaluate_retrieval(
        embeddings, items, verticals=verticals, is_query=is_query, scope=scope, seed=3
    )
    whole = EvaluationSet(np.arange(120), items, verticals, is_query, np.ones(120, bool))
    rows = {
        row["vertical"]: row for row in summary_rows(query_outcomes(embeddings, whole, scope), 3)
    }
    for row, result in (("ALL", found), *found.verticals.items()):
        expected = rows[row]
        assert (result.queries, result.gallery) == (expected["queries"], expected["gallery"])
        first = result.r_at_1
        assert first.value == expected["r_at_1"]
        assert (first.low, first.high) == (expected["r_at_1_low"], expected["r_at_1_high"])
        for name in ("r_at_5", "r_at_10", "map_at_r"):
            estimate = getattr(result, name)
            assert estimate.value == expected[name]
            assert estimate.low <= estimate.value <= estimate.high
    assert set(found.verticals) == {"bag", "dress"}
    assert (found.queries, found.without_answer) == (39, 1)


def test_pictures_of_one_vertical_need_no_names_of_it(pictures):
    embeddings, items, _ = pictures
    found = evaluate_retrieval(embeddings, items)
    assert found.verticals == {}
    assert found.queries == 119 and found.gallery == 120
    assert str(found).startswith(f"119 queries: R@1 {found.r_at_1.value:.3f} [")


def test_what_does_not_fit_is_refused(pictures):
    embeddings, items, verticals = pictures
    with pytest.raises(UserError, match="embeddings of shape"):
        evaluate_retrieval(embeddings[:-1], items)
    with pytest.raises(UserError, match="verticals of shape"):
        evaluate_retrieval(embeddings, items, verticals=verticals[:5])
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_retrieval(np.eye(3), ["a", "b", "c"])
    with pytest.raises(UserError, match="scope 'all' is unknown"):
        evaluate_retrieval(embeddings, items, scope="all")
