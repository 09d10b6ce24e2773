import pyarrow as pa
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.published_layout import (
    find_file,
    find_pictures,
    to_vertical,
)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_published_place_of_a_list_comes_first(tmp_path):
    names = ["Eval/list.txt", "list.txt"]
    touch(tmp_path / "list.txt")
    assert find_file(tmp_path, names, "the benchmark") == "list.txt"
    touch(tmp_path / "Eval" / "list.txt")
    assert find_file(tmp_path, names, "the benchmark") == "Eval/list.txt"


def test_a_missing_list_is_named_with_a_zip_that_may_hold_it(tmp_path):
    with pytest.raises(UserError) as raised:
        find_file(tmp_path, ["Eval/list.txt"], "the benchmark")
    assert str(raised.value) == (
        f"{tmp_path}: no Eval/list.txt, which the benchmark needs; "
        "is this the directory that holds it?"
    )
    touch(tmp_path / "Eval.zip")
    with pytest.raises(UserError, match=r"Eval\.zip is not unpacked: unzip it in .*password"):
        find_file(tmp_path, ["Eval/list.txt"], "the benchmark")


@pytest.mark.parametrize("place", ["img", "Img/img", "img/img", "Img/img/img"])
def test_pictures_are_found_however_their_zip_was_unpacked(tmp_path, place):
    touch(tmp_path / place / "MEN" / "a.jpg")
    assert find_pictures(tmp_path, "img", ["WOMEN", "MEN"]) == place


def test_pictures_that_wait_in_a_zip_are_told(tmp_path):
    touch(tmp_path / "img" / "readme")
    with pytest.raises(UserError) as raised:
        find_pictures(tmp_path, "img", ["WOMEN"])
    assert "no pictures: there is neither img/WOMEN nor Img/img/WOMEN." in str(raised.value)
    touch(tmp_path / "Img" / "img.zip")
    with pytest.raises(UserError, match=r"Img/img\.zip is not unpacked: unzip it in .*/Img"):
        find_pictures(tmp_path, "img", ["WOMEN"])


def test_verticals_are_lower_case_words_that_group_lists_can_hold():
    names = ["WOMEN_Blouses_Shirts", "short sleeve top", "a+b, c/d", "Été-Robe", "(x)", "ÄÖ"]
    found = to_vertical(pa.chunked_array([names[:2], names[2:]]))
    assert found.to_pylist() == [
        *("women_blouses_shirts", "short_sleeve_top", "a_b_c_d", "été_robe", "x", "äö"),
    ]
