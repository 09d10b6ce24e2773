"""A dataset grown from an earlier one: what is kept, copied and refused."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.growing import GrownFrom, grow, plan_growing, replayed_records
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig

HATS = [(f"hat{item}_{view}.png", f"hat{item}", "train") for item in range(3) for view in range(2)]


def write_hats(directory, rows=HATS, **settings):
    random = np.random.default_rng(1)
    with open(directory / "hats.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "item_id", "vertical", "split", "colour"])
        for name, item, split in rows:
            if not (directory / name).exists():
                pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(directory / name)
            writer.writerow([name, item, "hats", split, "red"])
    config = PrepareConfig(directory / "hats.csv", directory / "new", val_fraction=0, **settings)
    return prepare(config, processes=1)


@pytest.fixture
def grown_from(tiny_prepared, tmp_path):
    new = write_hats(tmp_path)
    return GrownFrom(tiny_prepared, replayed_records(tiny_prepared, 0.5, seed=3), new)


@pytest.mark.parametrize(("share", "kept"), [(0, 1), (0.5, 8), (1, 16)])
def test_a_share_of_training_images_and_all_val_and_test_images_are_kept(
    tiny_prepared, share, kept
):
    records = replayed_records(tiny_prepared, share, seed=3)
    splits, verticals = (tiny_prepared.column(name)[records] for name in ("split", "vertical"))

    assert (np.diff(records) > 0).all()
    for vertical in tiny_prepared.verticals:
        assert ((splits == "train") & (verticals == vertical)).sum() == kept
    for split in ("val", "test"):
        assert (splits == split).sum() == len(tiny_prepared.select(split=split))
    np.testing.assert_array_equal(records, replayed_records(tiny_prepared, share, seed=3))
    if share == 0.5:
        assert not np.array_equal(records, replayed_records(tiny_prepared, share, seed=4))


def test_unlabelled_images_count_as_training_images(tiny_unlabelled):
    records = replayed_records(tiny_unlabelled, 0, seed=0)
    assert set(tiny_unlabelled.column("split")[records]) == {"train", "val", "test"}


def test_images_are_copied_in_order_old_ones_first(grown_from, tmp_path):
    dataset = grow(grown_from, tmp_path / "prepared")
    old, replayed, new = grown_from.old, grown_from.replayed, grown_from.new

    assert len(dataset) == len(replayed) + len(HATS)
    assert dataset.verticals == ("bags", "dresses", "hats")
    assert dataset.info["counts"]["hats"] == {"train": len(HATS)}
    images = dataset.read_images(range(len(dataset)))
    assert images == [*old.read_images(replayed), *new.read_images(range(len(HATS)))]
    for name in ("item_id", "vertical", "split", "role", "image"):
        expected = [*old.column(name)[replayed], *new.column(name)]
        assert dataset.column(name).tolist() == expected, name
    np.testing.assert_array_equal(dataset.column("record"), np.arange(len(dataset)))
    # Only the new images have a colour.
    assert "colour" not in dataset.index.column_names


def test_a_grown_dataset_is_planned_found_again_and_not_replaced(grown_from, tmp_path):
    output = tmp_path / "prepared"
    plan = plan_growing(grown_from, output)
    assert (plan.state, plan.todo) == ("to do", len(grown_from.replayed) + len(HATS))
    assert not output.exists()

    made = grow(grown_from, output)
    assert plan.dataset.index.equals(made.index)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert grow(grown_from, output).fingerprint == made.fingerprint
    assert plan_growing(grown_from, output).state == "finished"
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before

    other = dataclasses.replace(grown_from, replayed=grown_from.replayed[1:])
    with pytest.raises(UserError, match="made with other inputs or settings: replayed was"):
        grow(other, output)


def test_an_image_in_both_datasets_is_refused(tiny_prepared, tmp_path):
    (again,) = tiny_prepared.column("image")[:1]
    shutil.copy(tiny_prepared.directory.parent / again, tmp_path / again)
    new = write_hats(tmp_path, [*HATS, (again, "hat9", "train")])
    grown = GrownFrom(tiny_prepared, replayed_records(tiny_prepared, 1, seed=0), new)

    with pytest.raises(UserError, match=f"image '{again}' is also in .*; images of a new"):
        grow(grown, tmp_path / "prepared")


def test_an_item_in_both_datasets_is_refused(tiny_prepared, tmp_path):
    (known,) = tiny_prepared.column("item_id")[:1]
    new = write_hats(tmp_path, [*HATS, ("hat9.png", known, "train")])
    grown = GrownFrom(tiny_prepared, replayed_records(tiny_prepared, 1, seed=0), new)

    with pytest.raises(UserError, match=f"item_id '{known}' also names an item of another"):
        grow(grown, tmp_path / "prepared")


def test_images_prepared_differently_are_refused(tiny_prepared, tmp_path):
    new = write_hats(tmp_path, max_side=24)
    grown = GrownFrom(tiny_prepared, replayed_records(tiny_prepared, 1, seed=0), new)

    with pytest.raises(UserError, match=r"new: was prepared with --max_side=24, but .* with 256;"):
        plan_growing(grown, tmp_path / "prepared")
