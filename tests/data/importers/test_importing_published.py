"""Imports miniature trees in the layouts of published datasets."""

import dataclasses
import json

import pytest
from data.importers import published_trees
from data.importers.published_trees import TREES

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.importing import ImportConfig, import_dataset
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.manifest import read_manifest


@pytest.mark.parametrize("name", TREES)
def test_published_datasets_are_compared_with_their_published_counts(tmp_path, name):
    root = tmp_path / name
    TREES[name](root)
    config = ImportConfig(name, root, tmp_path / "manifest.parquet")
    result = import_dataset(config)

    table = read_manifest(tmp_path / "manifest.parquet")
    assert set(table["split"].to_pylist()) >= {"train", "test"}
    assert all((tmp_path / image).is_file() for image in table["image"].to_pylist())
    assert all(image.startswith(f"{name}/") for image in table["image"].to_pylist())
    (first, count), *_ = FORMATS[name].published.items()
    assert len(result.warnings) > 1
    assert any(
        line.startswith(f"{first}: found ") and line.endswith(f", but {count:,} were published")
        for line in result.warnings
    )
    message = f", but {count:,} were published.*; without --strict this is a warning"
    with pytest.raises(UserError, match=message):
        import_dataset(dataclasses.replace(config, strict=True))


def test_errors_in_json_lists_name_the_element(tmp_path):
    published_trees.make_street2shop(tmp_path)
    path = tmp_path / "meta/json/train_pairs_bags.json"
    pairs = json.loads(path.read_text())
    pairs[1]["bbox"]["left"] = 900
    published_trees.write_json(path, pairs)
    with pytest.raises(UserError, match=r"^\S*bags.json: element 1: column 'x_max': 930.0; the"):
        import_dataset(ImportConfig("street2shop", tmp_path, tmp_path / "manifest.csv"))


def test_missing_images_of_street2shop_are_left_out_by_default_and_an_error_if_requested(tmp_path):
    published_trees.make_street2shop(tmp_path)
    config = ImportConfig("street2shop", tmp_path, tmp_path / "manifest.csv")
    with pytest.raises(UserError, match=r"element \d+: column 'image': .*\(missing in 2 of 40"):
        import_dataset(dataclasses.replace(config, missing="error"))
    result = import_dataset(config)
    assert result.table.num_rows == 38
    assert any("image is missing: 2 of 40 (e.g. images/0000" in note for note in result.notes)


def test_a_dataset_without_rows_is_an_error_and_writes_no_manifest(tmp_path):
    for folder in ("train", "validation"):
        published_trees.write_json(
            tmp_path / folder / "annos/000001.json", {"source": "user", "pair_id": 1}
        )
    with pytest.raises(UserError, match=f"^{tmp_path}: no usable image$"):
        import_dataset(ImportConfig("deepfashion2", tmp_path, tmp_path / "manifest.csv"))
    assert not (tmp_path / "manifest.csv").exists()


def test_every_format_is_tested(tmp_path):
    assert {*TREES, "folders", "table"} == set(FORMATS)
