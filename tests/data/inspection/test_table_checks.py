import pytest
from inspected import labels_of

from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.findings import some_names
from apparel_embed.data.inspection.labels import count_cells
from apparel_embed.data.inspection.table_checks import check_table


def found_in(tmp_path, rows, **settings):
    config = InspectConfig("manifest.csv", **settings)
    labels = labels_of(tmp_path, rows)
    cells = count_cells(labels, config.min_images)
    return {f"{one.code}": one for one in check_table(labels, cells, config)}


def items(names, vertical, split, images=2):
    return [(name, vertical, split, "both") for name in names for _ in range(images)]


SOUND = [
    *items("ab", "tops", "train"),
    *items("cd", "tops", "val"),
    *items("ef", "tops", "test"),
]


def test_a_sound_table_has_no_findings(tmp_path):
    assert found_in(tmp_path, SOUND, min_val_items=2) == {}


def test_items_seen_once_in_train_are_counted_and_listed(tmp_path):
    rows = [*SOUND, *items("xy", "tops", "train", 1), *items("z", "tops", "test", 3)]
    finding = found_in(tmp_path, rows, min_val_items=2)["items_with_few_images"]
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.rows.tolist() == [12, 13]
    assert finding.what.startswith("2 items of 4 in split train (50%) have fewer than 2 images")
    assert "--min_images=1" in finding.advice
    assert "items_with_few_images" not in found_in(tmp_path, rows, min_val_items=2, min_images=1)


def test_a_vertical_with_one_usable_item_has_no_specialist(tmp_path):
    rows = [*SOUND, *items("g", "bags", "train"), *items("h", "bags", "train", 1)]
    finding = found_in(tmp_path, rows)["untrainable_vertical"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert "1 vertical of split train with fewer than 2 items of" in finding.what
    assert finding.what.endswith("(bags): no specialist is trained, the combined model is kept.")
    assert finding.advice.endswith("into another or omit it; or set --min_images=1.")
    alone = [*SOUND, *items("g", "bags", "train")]
    finding = found_in(tmp_path, alone, min_images=1)["untrainable_vertical"]
    assert finding.advice.endswith("into another or omit it.")


def test_a_table_without_any_triplet_is_an_error(tmp_path):
    rows = [*items("a", "tops", "train"), *items("b", "bags", "train", 1)]
    finding = found_in(tmp_path, rows)["untrainable_vertical"]
    assert (finding.severity, finding.count) == ("error", 2)
    assert finding.what.endswith(": no triplets.")


def test_a_sentence_lists_at_most_five_names():
    assert some_names([]) == ""
    assert some_names(list("abcde")) == "a, b, c, d, e"
    assert some_names(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_missing_splits_are_reported(tmp_path):
    found = found_in(tmp_path, items("ab", "tops", "train"))
    assert {code: one.severity for code, one in found.items()} == {
        "no_val_split": "note",
        "no_test_split": "warning",
    }
    found = found_in(tmp_path, items("ab", "tops", "test"))
    assert found["no_train_split"].severity == "error"
    # The missing train split is reported once, not per vertical.
    assert "vertical_without_train" not in found


def test_verticals_missing_from_a_split_are_named(tmp_path):
    found = found_in(tmp_path, [*SOUND, *items("gh", "bags", "train"), *items("i", "hats", "val")])
    assert "1 vertical without images of split test: bags." in found["vertical_without_test"].what
    assert "bags" in found["vertical_without_val"].what
    assert "hats" in found["vertical_without_train"].what


def test_queries_without_an_answer_are_counted_and_listed(tmp_path):
    rows = [*SOUND, *items("xyz", "tops", "test", 1), ("q", "bags", "test", "query")]
    found = found_in(tmp_path, rows, min_val_items=2)
    finding = found["unanswered_queries"]
    assert (finding.severity, finding.count) == ("warning", 4)
    assert finding.rows.tolist() == [12, 13, 14, 15]
    assert finding.what.startswith("4 queries of 8 in split test (50%)")
    assert "bags" in found["vertical_without_answers"].what


def test_a_split_without_any_answer_is_an_error(tmp_path):
    rows = [*items("ab", "tops", "train"), *items("cd", "tops", "test", 1)]
    found = found_in(tmp_path, rows)
    assert found["split_without_answers"].severity == "error"
    assert "vertical_without_answers" not in found


def test_gallery_images_alone_cannot_be_evaluated(tmp_path):
    rows = [*items("ab", "tops", "train"), *[("c", "tops", "test", "gallery")] * 2]
    assert "split_without_answers" in found_in(tmp_path, rows)


def test_verticals_with_few_validation_items_are_listed_with_their_number(tmp_path):
    finding = found_in(tmp_path, SOUND)["few_validation_items"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert "tops 2" in finding.what and "20" in finding.what
    assert "few_validation_items" not in found_in(tmp_path, SOUND, min_val_items=2)


@pytest.mark.parametrize("images", [1, 2])
def test_a_single_item_does_not_crash(tmp_path, images):
    found = found_in(tmp_path, items("a", "tops", "train", images))
    assert "untrainable_vertical" in found
