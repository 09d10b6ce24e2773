import numpy as np
import pytest

from apparel_embed.training.validation import standard_error


def test_the_error_is_that_of_a_mean_over_verticals_whose_items_are_few(tiny_prepared):
    items = tiny_prepared.column("item_id")[tiny_prepared.select(split="val", verticals=["bags"])]
    count = len(np.unique(items))
    share = (0.8 * count + 1) / (count + 2)
    expected = np.sqrt(share * (1 - share) / count)

    one = standard_error(tiny_prepared, ["bags"])(0.8)
    assert one == pytest.approx(expected)
    # Two alike verticals have a mean that is surer.
    both = standard_error(tiny_prepared, ["bags", "dresses"])(0.8)
    assert both == pytest.approx(one / np.sqrt(2))


def test_of_few_items_all_found_an_error_is_left(tiny_prepared):
    assert standard_error(tiny_prepared, ["bags"])(1.0) > 0.05
