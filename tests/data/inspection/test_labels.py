import numpy as np
import pytest
from inspected import labels_of

from apparel_embed.data.inspection.labels import count_by_images, count_cells, first_rows


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
    assert labels.images_of_items.tolist() == [1, 2, 0]
    assert labels.known_items.tolist() == [0, 1]
    assert labels.stage.tolist() == [0, 2, 0, 2, 0]
    assert labels.is_query.tolist() == [True, True, True, False, True]
    assert labels.is_gallery.tolist() == [True, False, True, True, True]


def test_a_query_is_answered_by_another_gallery_image_of_its_item_only(tmp_path):
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
    assert labels.is_answered.tolist() == answered


def test_first_rows_are_found_in_order_of_first_appearance():
    assert first_rows(np.array([0, 0, 1, 0, 2, 1])).tolist() == [0, 2, 4]
    assert first_rows(np.array([], np.int32)).tolist() == []


@pytest.fixture
def labels(tmp_path):
    return labels_of(
        tmp_path,
        [
            *[("a", "tops", "train", "both")] * 4,
            ("b", "tops", "train", "query"),
            ("c", "tops", "test", "query"),
            ("c", "tops", "test", "gallery"),
            ("c", "tops", "test", "gallery"),
            ("d", "tops", "test", "query"),
            *[("e", "bags", "train", "both")] * 7,
            ("", "bags", "unlabelled", "both"),
        ],
    )


def test_cells_count_items_images_roles_and_answers(labels):
    found = {(cell.vertical, cell.split): cell for cell in count_cells(labels, 2)}
    assert list(found) == [
        ("bags", "train"),
        ("bags", "unlabelled"),
        ("tops", "train"),
        ("tops", "test"),
    ]
    train, test = found["tops", "train"], found["tops", "test"]
    assert (train.items, train.images, train.few_images) == (2, 5, 1)
    assert (train.query_only, train.gallery_only, train.both) == (1, 0, 4)
    assert (train.median_images, train.most_images) == (2.5, 4)
    assert (train.queries, train.unanswered, train.answered_items) == (None, None, None)
    assert (test.items, test.images, test.median_images, test.most_images) == (2, 4, 2, 3)
    assert (test.queries, test.unanswered, test.answered_items) == (2, 1, 1)
    assert (found["bags", "train"].median_images, found["bags", "train"].items) == (7, 1)
    unlabelled = found["bags", "unlabelled"]
    assert (unlabelled.items, unlabelled.images, unlabelled.median_images) == (0, 1, 0)


def test_cells_agree_with_counting_row_by_row(tmp_path):
    random = np.random.default_rng(0)
    items = random.integers(0, 60, 400)
    rows = [
        (
            f"i{item}",
            f"v{item % 3}",
            ("train", "val", "test")[item % 5 % 3],
            ("query", "gallery", "both")[random.integers(3)],
        )
        for item in items
    ]
    labels = labels_of(tmp_path, rows)
    for cell in count_cells(labels, 5):
        own = [row for row in rows if row[1:3] == (cell.vertical, cell.split)]
        counts = [sum(row[0] == item for row in own) for item in {row[0] for row in own}]
        assert cell.images == len(own)
        assert cell.items == len(counts)
        assert cell.few_images == sum(count < 5 for count in counts)
        assert cell.median_images == np.median(counts)
        assert cell.most_images == max(counts)
        assert cell.query_only == sum(row[3] == "query" for row in own)


def test_items_are_counted_by_their_images_up_to_the_highest_class(labels):
    assert count_by_images(labels) == {
        "train": {"1": 1, "2": 0, "3": 0, "4": 1, "5": 0, "6-10": 1},
        "test": {"1": 1, "2": 0, "3": 1, "4": 0, "5": 0, "6-10": 0},
    }


def test_an_item_with_very_many_images_is_in_the_last_class(tmp_path):
    labels = labels_of(tmp_path, [("a", "tops", "train", "both")] * 150)
    assert list(count_by_images(labels)["train"].items())[-1] == ("101+", 1)
