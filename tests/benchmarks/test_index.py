import numpy as np

from apparel_embed.benchmarks.index import (
    IndexBenchmark,
    run_index_benchmark,
    synthetic_embeddings,
    table_of,
)
from apparel_embed.search.index import IndexSettings


def test_a_flat_index_misses_nothing_and_the_table_tells_so():
    config = IndexBenchmark(
        vectors=500, dim=8, queries=5, k=10, settings=[IndexSettings("FLAT")], seed=3
    )
    (found,) = run_index_benchmark(config)

    assert (found.kind, found.recall) == ("FLAT", 1.0)
    assert min(found.build_seconds, found.query_ms, found.query_in_vertical_ms) > 0
    assert found.megabytes > 500 * 8 * 4 / 1e6
    assert "1.0000" in table_of([found], config)


def test_vectors_have_unit_length_and_depend_on_the_seed_only():
    config = IndexBenchmark(vectors=35, dim=8, queries=4, k=1, settings=[], seed=1)
    vectors, queries = synthetic_embeddings(config)

    assert (vectors.shape, queries.shape) == ((35, 8), (4, 8))
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([vectors, queries]), axis=1), 1, 1e-5)
    np.testing.assert_array_equal(vectors, synthetic_embeddings(config)[0])
