"""The code of the tour runs unchanged, and its model is better than chance."""

import pytest
from docs_blocks import ROOT, blocks_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """The variables of the tour's code after running it."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tour"))
        for block in blocks_of(ROOT / "docs/tour.md"):
            assert block.language == "python", block
            exec(compile(block.code, str(block), "exec"), names)
    return names


def test_the_tour_evaluates_a_model_better_than_chance(toured):
    found = toured["found"]
    assert found.queries == 2 * 12 * 3 and found.without_answer == 0
    assert set(found.verticals) == {"bag", "dress"}
    # A random image of the gallery is of the right item with probability 1/12.
    assert found.r_at_1.low > 1 / 12


def test_the_tour_searches_and_serves(toured):
    assert toured["positions"].shape == (1, 3)
    assert toured["answer"].valid.tolist() == [True, True, False]
