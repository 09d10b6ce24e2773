import numpy as np
from inspected import labels_of

from apparel_embed.data.inspection.labels import first_rows


def test_rows_become_numbers_and_blank_items_are_unknown(tmp_path):
    labels = labels_of(
        tmp_path,
        [
            ("007", "tops", "train", "both"),
            ("7", "bags", "test", "query"),
            ("", "tops", "unlabelled", "both"),
            ("7", "bags", "test", "gallery"),
            ("  ", "tops", "unlabelled", "both"),
        ],
    )
    assert labels.verticals == ("bags", "tops")
    assert labels.vertical.tolist() == [1, 0, 1, 0, 1]
    assert labels.item.tolist() == [0, 1, -1, 1, -1]
    assert labels.items.to_pylist()[:2] == ["007", "7"]
    assert labels.first_rows.tolist()[:2] == [0, 1]
    assert labels.pictures_of_items.tolist() == [1, 2, 0, 0]
    assert labels.stage.tolist() == [0, 2, 0, 2, 0]
    assert labels.is_query.tolist() == [True, True, True, False, True]
    assert labels.is_gallery.tolist() == [True, False, True, True, True]


def test_a_query_is_answered_by_another_gallery_picture_of_its_item_only(tmp_path):
    labels = labels_of(
        tmp_path,
        [
            ("pair", "tops", "test", "query"),
            ("pair", "tops", "test", "gallery"),
            ("both", "tops", "test", "both"),
            ("both", "tops", "test", "both"),
            ("alone", "tops", "test", "both"),
            ("queries", "tops", "test", "query"),
            ("queries", "tops", "test", "query"),
            ("gallery", "tops", "test", "gallery"),
            ("gallery", "tops", "test", "gallery"),
            ("train", "tops", "train", "both"),
        ],
    )
    answered = [True, False, True, True, False, False, False, False, False, False]
    assert labels.answered().tolist() == answered


def test_first_rows_are_found_in_order_of_first_appearance():
    assert first_rows(np.array([0, 0, 1, 0, 2, 1])).tolist() == [0, 2, 4]
    assert first_rows(np.array([], np.int32)).tolist() == []
