import os

import pytest
from data.importers.shop_trees import draw

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.walk import LeftOut, list_folder, pictures_below


def test_a_folder_is_listed_in_order_and_what_is_hidden_or_no_picture_is_counted(tmp_path):
    draw(tmp_path, ["b.PNG", "a.jpg", "c.webp", ".d.jpg", "@eaDir/e.jpg", "__MACOSX/f.jpg"])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "Thumbs.db").write_text("no picture")
    (tmp_path / "z").mkdir()
    (tmp_path / "y.jpg.d").mkdir()
    left_out = LeftOut()

    found = list_folder(tmp_path, "", left_out)

    assert found.pictures == ["a.jpg", "b.PNG", "c.webp"]
    assert found.folders == ["y.jpg.d", "z"]
    assert left_out.notes() == (
        "left out: files that are no pictures, by their names: 2 (e.g. Thumbs.db)",
        "left out: hidden files and folders: 3 (e.g. .d.jpg)",
    )


def test_pictures_are_found_at_any_depth_once_and_in_order(tmp_path):
    draw(tmp_path, ["b/c/2.jpg", "b/1.jpg", "a.jpg", "b c/ä.jpg"])
    os.symlink(tmp_path / "b", tmp_path / "b" / "c" / "loop")
    os.symlink("self", tmp_path / "self")
    left_out = LeftOut()

    assert pictures_below(tmp_path, left_out) == ["a.jpg", "b c/ä.jpg", "b/1.jpg", "b/c/2.jpg"]
    assert left_out.notes() == (
        "left out: files that are no pictures, by their names: 1 (e.g. self)",
        "left out: links to folders that were found already: 1 (e.g. b/c/loop)",
    )


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xe4.jpg"), "wb"):
        pass
    with pytest.raises(UserError, match=r"the name b'\\xe4.jpg' is not UTF-8; rename"):
        list_folder(tmp_path, "", LeftOut())


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        list_folder(tmp_path / "none", "", LeftOut())
