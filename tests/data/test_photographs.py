"""Whole photographs: one record with all garments, in the detector's square input."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.photographs import from_square, garments_of
from apparel_embed.data.prepare import plan_prepare, prepare
from apparel_embed.data.prepare_plan import PrepareConfig

HEADER = "image,item_id,vertical,split,role,x_min,y_min,x_max,y_max"
ROWS = [
    "wide.png,d1,dress,train,query,0,0,40,40",
    "shop.png,d1,dress,train,gallery,,,,",
    "tall.png,b1,bag,test,query,10,20,30,80",
    "wide.png,b1,bag,test,query,100,10,260,90",
    "wide.png,b2,bag,train,query,-50,-50,-1,-1",
]


def make(directory, rows=ROWS, **config):
    sizes = {"wide.png": (200, 100), "tall.png": (50, 100), "shop.png": (64, 64)}
    for name, size in sizes.items():
        Image.new("RGB", size, "grey").save(directory / name)
    manifest = directory / "manifest.csv"
    manifest.write_text("\n".join([HEADER, *rows]) + "\n")
    return PrepareConfig(
        manifest, directory / "photographs", photographs=True, max_side=80, **config
    )


def sizes_of(dataset):
    index = dataset.index
    return np.stack([index["upright_width"], index["upright_height"]], axis=1)


def test_only_images_with_boxes_become_records_one_each(tmp_path):
    dataset = prepare(make(tmp_path), processes=1)
    assert dataset.column("image").tolist() == ["wide.png", "tall.png"]
    assert dataset.verticals == ("photograph",)
    # A photograph with a test garment is not used for training.
    assert dataset.column("split").tolist() == ["test", "test"]
    assert sizes_of(dataset).tolist() == [[200, 100], [50, 100]]


def test_boxes_are_fractions_of_the_square_around_the_photograph(tmp_path):
    dataset = prepare(make(tmp_path), processes=1)
    found = garments_of(dataset, np.array([0, 1]))
    # The box outside is dropped; the one that extends beyond the edge is clipped.
    assert found.photographs.tolist() == [0, 0, 1]
    assert found.verticals.tolist() == ["dress", "bag", "bag"]
    assert found.items.tolist() == ["d1", "b1", "b1"]
    assert found.splits.tolist() == ["train", "test", "test"]
    np.testing.assert_allclose(
        found.boxes,
        [
            # 200 x 100 is padded to 200 x 200 by 50 above.
            [0.0, 0.25, 0.2, 0.45],
            [0.5, 0.3, 1.0, 0.7],
            # 50 x 100 is padded by 25 on the left.
            [0.35, 0.2, 0.55, 0.8],
        ],
        atol=1e-6,
    )


def test_boxes_round_trip_through_the_square(tmp_path):
    dataset = prepare(make(tmp_path), processes=1)
    found = garments_of(dataset, np.array([0, 1]))
    sizes = sizes_of(dataset)[found.photographs]
    pixels = [[0, 0, 40, 40], [100, 10, 200, 90], [10, 20, 30, 80]]
    np.testing.assert_allclose(from_square(found.boxes, sizes), pixels, atol=1e-4)


def test_a_photograph_without_val_or_test_garments_is_of_split_train(tmp_path):
    rows = [row.replace(",test,", ",train,") for row in ROWS]
    assert prepare(make(tmp_path, rows), processes=1).column("split").tolist() == ["train"] * 2


def test_a_manifest_without_boxes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"manifest.csv: no row has a box.*x_min, y_min"):
        prepare(make(tmp_path, ROWS[1:2]), processes=1)


def test_a_dataset_of_single_garments_is_refused(tiny_prepared):
    with pytest.raises(UserError, match="needs whole photographs, prepared with --photographs"):
        garments_of(tiny_prepared, np.arange(2))


def test_the_plan_lists_the_photographs_before_they_are_prepared(tmp_path):
    config = make(tmp_path)
    plan = plan_prepare(config)
    assert (plan.state, plan.todo) == ("to do", 2)
    assert plan.dataset.column("split").tolist() == ["test", "test"]
    prepare(config, processes=1)
    assert plan_prepare(config).state == "finished"


def test_a_broken_photograph_is_rejected_with_the_row_of_its_first_garment(tmp_path):
    config = make(tmp_path)
    (tmp_path / "tall.png").write_bytes(b"broken")
    dataset = prepare(config, processes=1)
    with open(tmp_path / "photographs" / "rejects.csv", newline="") as file:
        (reject,) = csv.DictReader(file)
    assert (reject["image"], reject["row"]) == ("tall.png", "4")
    assert len(dataset) == 1
    assert sizes_of(dataset).tolist() == [[200, 100]]


def test_the_index_does_not_depend_on_the_number_of_processes_and_shards(tmp_path):
    one = prepare(make(tmp_path), processes=1)
    config = make(tmp_path, shard_records=1)
    other = prepare(
        PrepareConfig(
            config.manifest, tmp_path / "other", photographs=True, max_side=80, shard_records=1
        ),
        processes=2,
    )
    assert one.index == other.index


def test_datasets_of_single_garments_have_no_trace_of_photographs(tmp_path):
    config = make(tmp_path)
    single = prepare(PrepareConfig(config.manifest, tmp_path / "single"), processes=1)
    assert "photographs" not in json.dumps(single.info)
    assert "garments" not in single.index.column_names
