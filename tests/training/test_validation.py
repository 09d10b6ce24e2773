import numpy as np
import pytest
from tiny_teachers import MODEL

from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import build_embedding_model
from apparel_embed.training.validation import make_validation


def test_the_error_is_that_of_a_mean_over_verticals_with_few_items(tiny_prepared):
    items = tiny_prepared.column("item_id")[tiny_prepared.select(split="val", verticals=["bags"])]
    count = len(np.unique(items))
    share = (0.8 * count + 1) / (count + 2)
    expected = np.sqrt(share * (1 - share) / count)

    one = make_validation(tiny_prepared, ["bags"], 32).error(0.8)
    assert one == pytest.approx(expected)
    # The mean of two equal verticals has a smaller error.
    both = make_validation(tiny_prepared, ["bags", "dresses"], 32).error(0.8)
    assert both == pytest.approx(one / np.sqrt(2))


def test_the_error_is_above_zero_if_all_of_a_few_items_are_found(tiny_prepared):
    assert make_validation(tiny_prepared, ["bags"], 32).error(1.0) > 0.05


def test_images_that_do_not_fit_into_memory_are_decoded_again(tiny_prepared, monkeypatch):
    read = type(tiny_prepared).read_images
    calls = []
    monkeypatch.setattr(
        type(tiny_prepared),
        "read_images",
        lambda self, records: calls.append(len(records)) or read(self, records),
    )
    embedder = Embedder(build_embedding_model(MODEL))
    found = []
    for cache_gib in (1.0, 0.0):
        validation = make_validation(tiny_prepared, ["bags"], 32, cache_gib)
        before = len(calls)
        found.append(validation.measure(embedder))
        assert (len(calls) > before) == (cache_gib == 0)
    assert found[0] == found[1]
