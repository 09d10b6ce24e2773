"""The tour runs as it stands, and its model has learnt something."""

import pytest
from docs_blocks import ROOT, blocks_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """What the tour's code leaves behind."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tour"))
        for block in blocks_of(ROOT / "docs/tour.md"):
            assert block.language == "python", block
            exec(compile(block.code, str(block), "exec"), names)
    return names


def test_the_tour_evaluates_what_it_has_trained(toured):
    found = toured["found"]
    assert found.queries == 2 * 12 * 3 and found.without_answer == 0
    assert set(found.verticals) == {"bag", "dress"}
    # An image drawn at random from the gallery is of the right item in a twelfth of cases.
    assert found.r_at_1.low > 1 / 12


def test_the_tour_searches_and_serves(toured):
    assert toured["positions"].shape == (1, 3)
    assert toured["answer"].valid.tolist() == [True, True, False]
