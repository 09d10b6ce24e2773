"""Problems of a dataset are reported before anything is trained."""

from __future__ import annotations

import csv

import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.training.readiness import check_readiness


def dataset(directory, *items):
    """Prepares a dataset of items, each a tuple of vertical, split and number of images."""
    directory.mkdir(exist_ok=True)
    rows = []
    for item, (vertical, split, images) in enumerate(items):
        for number in range(images):
            name = f"{item}_{number}.png"
            Image.new("RGB", (8, 8), (20 * item, 40 * number, 9)).save(directory / name)
            rows.append([name, f"item{item}", vertical, split])
    with open(directory / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "item_id", "vertical", "split"], *rows])
    return prepare(PrepareConfig(directory / "manifest.csv", directory / "prepared"), processes=1)


BAGS = [("bags", split, 2) for split in ("train", "train", "val", "val", "test", "test")]


def test_a_complete_dataset_gives_no_notes(tiny_prepared):
    found = check_readiness(tiny_prepared, min_images=2, split="test")
    assert (found.problems, found.notes, found.is_measured) == ((), (), True)


def test_all_incomplete_verticals_are_named_together(tmp_path):
    few = [("hats", "train", 2), ("hats", "train", 1), ("gloves", "train", 1)]
    made = dataset(tmp_path, *BAGS, *few)
    found = check_readiness(made, min_images=2, split="test")
    assert found.problems == () and found.is_measured
    train, val, test = found.notes
    assert "fewer than 2 items of 2 images or more in split train: gloves 0, hats 1." in train
    assert "They keep the combined model (--small_verticals=join)" in train
    assert "Split val has no query with a match in: gloves, hats." in val
    assert "Split test has no query with a match in: gloves, hats." in test

    # If an image may be its own positive, both hats count.
    alone = check_readiness(made, min_images=1, split="test")
    assert "1 image or more in split train: gloves 1." in alone.notes[0]


@pytest.mark.parametrize(
    "options", [{"small_verticals": "refuse"}, {"specialists_start_from_combined": False}]
)
def test_small_verticals_are_refused_if_requested_or_without_a_combined_model(tmp_path, options):
    made = dataset(tmp_path, *BAGS, ("hats", "train", 1))
    (problem,) = check_readiness(made, min_images=2, split="test", **options).problems
    assert "in split train: hats 0." in problem
    assert "drop them with --map_verticals=hats:," in problem


def test_a_dataset_without_triplets_is_refused(tmp_path):
    made = dataset(tmp_path, ("bags", "train", 2), ("hats", "train", 1))
    first = check_readiness(made, min_images=2, split="test").problems[0]
    assert first.startswith("Split train has 1 item with 2 images or more; triplets need 2 items.")


def test_a_split_without_answers_is_reported_as_not_measured(tmp_path):
    made = dataset(tmp_path, *BAGS[:4], ("bags", "test", 1), ("bags", "test", 1))
    found = check_readiness(made, min_images=2, split="test")
    assert not found.is_measured and "nothing is measured" in found.notes[-1]


def test_the_first_of_many_verticals_are_named_and_the_others_counted(tmp_path):
    made = dataset(tmp_path, *BAGS, *((f"v{n:02}", "train", 1) for n in range(12)))
    note = check_readiness(made, min_images=2, split="test").notes[0]
    assert "v07 0 and 4 others." in note and "v08" not in note


def test_a_vertical_whose_only_item_is_always_found_is_named(tmp_path):
    made = dataset(tmp_path, *BAGS, *(("hats", split, 2) for split in ("train", "train", "val")))
    notes = check_readiness(made, min_images=2, split="test").notes
    assert "Split val has only one item in: hats. R@1 is 1 there" in notes[-1]
    assert not any("Split test has only one item" in note for note in notes)


def test_an_unknown_rule_is_refused(tiny_prepared):
    with pytest.raises(UserError, match="--small_verticals=drop: expected one of join, refuse"):
        check_readiness(tiny_prepared, min_images=2, split="test", small_verticals="drop")
