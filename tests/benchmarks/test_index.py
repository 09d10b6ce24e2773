import numpy as np

from apparel_embed.benchmarks.index import IndexBenchmark, measure_indices, synthetic_embeddings
from apparel_embed.search.index import IndexSettings


def test_a_flat_index_has_full_recall():
    config = IndexBenchmark(500, 8, 5, 10, [IndexSettings("FLAT")], seed=3)
    (row,) = measure_indices(config)

    assert (row["kind"], row["recall"], row["recall_in_vertical"]) == ("FLAT", 1.0, 1.0)
    assert min(row["build_seconds"], row["query_ms"], row["query_ms_in_vertical"]) > 0
    assert row["disk_mb"] > 500 * 8 * 4 / 1e6


def test_vectors_have_unit_length_and_depend_only_on_the_seed():
    config = IndexBenchmark(vectors=35, dim=8, queries=4, seed=1)
    vectors, queries = synthetic_embeddings(config)

    assert (vectors.shape, queries.shape) == ((35, 8), (4, 8))
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([vectors, queries]), axis=1), 1, 1e-5)
    np.testing.assert_array_equal(vectors, synthetic_embeddings(config)[0])
