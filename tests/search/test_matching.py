"""Which models may search an index, tested on directories that only look like SavedModels."""

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.search.build import build_index, saved_model_fingerprint
from apparel_embed.search.index import IndexedImage, Version, open_index
from apparel_embed.search.matching import answering_model, answering_version


def saved_model(directory, content, *aligned_to):
    (directory / "assets").mkdir(parents=True)
    (directory / "saved_model.pb").write_text(content)
    if aligned_to:
        (directory / "assets" / "aligned_to.txt").write_text("".join(f"{a}\n" for a in aligned_to))
    return directory, saved_model_fingerprint(directory)


@pytest.fixture
def old(tmp_path):
    return saved_model(tmp_path / "old" / "1", "old")


@pytest.fixture
def index(tmp_path, old):
    """An index of one image, embedded by the old model."""
    with open_index(str(tmp_path / "index.db")) as opened:
        rows = iter([([IndexedImage("0" * 32, "0.jpg", "", "bag")], np.eye(1, 4))])
        build_index(opened, Version(old[1], 4), rows)
        yield opened


def test_the_model_of_the_index_and_one_aligned_to_it_may_search(tmp_path, index, old):
    aligned, _ = saved_model(tmp_path / "aligned" / "1", "aligned", "f" * 64, old[1])
    for model in (old[0], aligned):
        assert answering_version(index, model).model == old[1]


@pytest.mark.parametrize("aligned_to", [(), ("f" * 64,)])
def test_any_other_model_is_refused_and_the_error_names_both(tmp_path, index, old, aligned_to):
    other, fingerprint = saved_model(tmp_path / "other" / "1", "other", *aligned_to)
    with pytest.raises(UserError) as refused:
        answering_version(index, other)
    for name in (str(other), fingerprint[:16], old[1][:16], "not aligned"):
        assert name in str(refused.value)


def test_an_aligned_model_is_not_the_model_of_the_index(tmp_path, index, old):
    aligned, fingerprint = saved_model(tmp_path / "aligned" / "1", "aligned", old[1])
    assert answering_version(index, old[0], exactly=True).model == old[1]
    with pytest.raises(UserError, match=rf"{fingerprint[:16]} is not the model .*{old[1][:16]}"):
        answering_version(index, aligned, exactly=True)


def test_the_model_of_the_index_is_preferred_to_the_newest_aligned_one(tmp_path, index, old):
    base = tmp_path / "versions"
    saved_model(base / "1", "other")
    with pytest.raises(UserError, match=rf"{old[1][:16]}\), and none aligned to it"):
        answering_model(index, base)
    for version in ("2", "3"):
        saved_model(base / version, version, old[1])
    assert answering_model(index, base) == base / "3"
    saved_model(base / "4", "4")
    assert answering_model(index, base) == base / "3"
    saved_model(base / "5", "old")
    saved_model(base / "6", "6", old[1])
    assert answering_model(index, base) == base / "5"
