"""The generated dataset: bytes, manifest, refusal to overwrite, and the command-line tool."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import BOX_COLUMNS, read_manifest
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.synthetic.generate import generate, manifest_table
from apparel_embed.data.synthetic.world import CUES, SyntheticConfig

TINY = SyntheticConfig(
    verticals=("dress", "bag"), train_items=2, val_items=1, test_items=2, image_size=32
)
WITH_SCENES = dataclasses.replace(TINY, scenes=4, scene_size=128)
TOOL = Path(__file__).parents[3] / "tools" / "make_synthetic_dataset.py"


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    output = tmp_path_factory.mktemp("synthetic") / "out"
    result = generate(TINY, output)
    assert not result.skipped
    return output


def _rows(root: Path) -> list[dict[str, str]]:
    with open(root / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_bytes_do_not_depend_on_the_number_of_processes(dataset, tmp_path):
    result = generate(TINY, tmp_path / "two", processes=2)
    assert result.images == 50
    assert _bytes(tmp_path / "two") == _bytes(dataset)


def test_another_seed_gives_other_images(dataset, tmp_path):
    other = SyntheticConfig(**{**TINY.to_json(), "seed": 1})
    generate(other, tmp_path / "other")
    mine, theirs = _bytes(dataset), _bytes(tmp_path / "other")
    assert all(mine[name] != theirs[name] for name in mine if name.endswith(".jpg"))


def test_the_manifest_has_one_row_per_image(dataset):
    rows = _rows(dataset)
    assert list(rows[0]) == ["image", "item_id", "vertical", "split", "role", "cue"]
    assert rows[0] == {
        "image": "images/dress/dress-0000_gallery0.jpg",
        "item_id": "dress-0000",
        "vertical": "dress",
        "split": "train",
        "role": "gallery",
        "cue": "outline",
    }
    on_disk = {str(p.relative_to(dataset)) for p in dataset.rglob("*.jpg")}
    assert sorted(on_disk) == sorted(row["image"] for row in rows)
    assert all(row["cue"] == CUES[row["vertical"]] for row in rows)
    roles = [row["role"] for row in rows]
    assert (roles.count("gallery"), roles.count("query")) == (20, 30)


def test_no_item_is_in_two_splits(dataset):
    of_item: dict[str, set[str]] = {}
    for row in _rows(dataset):
        of_item.setdefault(row["item_id"], set()).add(row["split"])
    assert {len(splits) for splits in of_item.values()} == {1}
    assert sum(splits == {"test"} for splits in of_item.values()) == 4


def test_unlabelled_items_are_rows_without_item_id_and_change_nothing_else(dataset, tmp_path):
    result = generate(dataclasses.replace(TINY, unlabelled_items=2), tmp_path / "more")
    assert result.images == 70
    rows = _rows(tmp_path / "more")
    further = [row for row in rows if row["split"] == "unlabelled"]
    assert [row for row in rows if row not in further] == _rows(dataset)
    assert {row["item_id"] for row in further} == {""}
    assert [row["vertical"] for row in further] == ["dress"] * 10 + ["bag"] * 10
    assert read_manifest(result.manifest).num_rows == 70
    less, more = _bytes(dataset), _bytes(tmp_path / "more")
    assert sorted(set(more) - set(less)) == sorted(row["image"] for row in further)
    assert len({more[row["image"]] for row in further}) == 20
    # Including the contact sheet, which shows labelled items only.
    same = set(less) - {"manifest.csv", "world.json"}
    assert {name: more[name] for name in same} == {name: less[name] for name in same}


@pytest.fixture(scope="module")
def with_scenes(tmp_path_factory):
    output = tmp_path_factory.mktemp("scenes") / "out"
    return generate(WITH_SCENES, output)


def test_scenes_are_rows_with_boxes_and_change_nothing_else(dataset, with_scenes):
    root = with_scenes.manifest.parent
    assert with_scenes.images == 50 + 6
    rows = _rows(root)
    assert list(rows[0])[6:] == list(BOX_COLUMNS)
    scenes = [row for row in rows if row["x_min"]]
    assert rows[50:] == scenes
    singles = [{name: row[name] for name in list(row)[:6]} for row in rows[:50]]
    assert singles == _rows(dataset)
    assert all(row[name] == "" for row in rows[:50] for name in BOX_COLUMNS)
    less, more = _bytes(dataset), _bytes(root)
    assert sorted(set(more) - set(less)) == sorted(
        {row["image"] for row in scenes} | {"scenes.png"}
    )
    same = set(less) - {"manifest.csv", "world.json"}
    assert {name: more[name] for name in same} == {name: less[name] for name in same}
    settings = json.loads((root / "world.json").read_text("utf-8"))["settings"]
    assert settings == {**TINY.to_json(), "scenes": 4, "scene_size": 128}
    assert "scenes" not in TINY.to_json()


def test_garments_of_scenes_are_queries_for_items_of_the_gallery(with_scenes):
    rows = _rows(with_scenes.manifest.parent)
    shop = {row["item_id"]: row for row in rows if row["role"] == "gallery"}
    verticals: dict[str, list[str]] = {}
    for row in rows[50:]:
        assert row["role"] == "query"
        assert all(row[name] == shop[row["item_id"]][name] for name in ("vertical", "split", "cue"))
        verticals.setdefault(row["image"], []).append(row["vertical"])
    assert sorted(verticals) == [f"images/scenes/scene-{number:06d}.jpg" for number in range(6)]
    assert all(len(set(names)) == len(names) for names in verticals.values())


def test_bytes_of_scenes_do_not_depend_on_the_number_of_processes(with_scenes, tmp_path):
    generate(WITH_SCENES, tmp_path / "three", processes=3)
    assert _bytes(tmp_path / "three") == _bytes(with_scenes.manifest.parent)
    assert generate(WITH_SCENES, tmp_path / "three").skipped


@pytest.mark.parametrize("config", [TINY, WITH_SCENES])
def test_the_planned_rows_equal_the_written_ones(config, dataset, with_scenes):
    written = with_scenes.manifest if config.scenes else dataset / "manifest.csv"
    planned, read = manifest_table(config), read_manifest(written)
    assert planned.to_pydict() == read.select(planned.column_names).to_pydict()
    assert [field.type for field in planned.schema] == [
        read.schema.field(name).type for name in planned.column_names
    ]


def test_prepare_crops_the_garments_of_scenes(with_scenes, tmp_path):
    config = PrepareConfig(with_scenes.manifest, tmp_path / "prepared", crop_margin=0.0)
    dataset = prepare(config, processes=1)
    root = with_scenes.manifest.parent
    rows = _rows(root)
    assert (len(dataset), dataset.reject_count) == (len(rows), 0)
    crops = dataset.read_images(list(range(50, len(rows))))
    for row, crop in zip(rows[50:], crops):
        left, top, right, bottom = (int(row[name]) for name in BOX_COLUMNS)
        with Image.open(io.BytesIO(crop)) as image, Image.open(root / row["image"]) as scene:
            assert image.size == (right - left, bottom - top)
            cut = np.asarray(scene.crop((left, top, right, bottom)), np.float64)
            assert np.abs(np.asarray(image, np.float64) - cut).mean() < 4


def test_the_world_file_contains_settings_and_cues(dataset):
    world = json.loads((dataset / "world.json").read_text("utf-8"))
    assert world["cues"] == {"dress": "outline", "bag": "print"}
    assert world["settings"] == TINY.to_json()


def test_contact_sheet_opens_and_is_small(dataset):
    with Image.open(dataset / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
        sheet.load()
        assert sheet.width > 5 * 64 and sheet.height > 2 * 64
    assert (dataset / "contact_sheet.png").stat().st_size < 1_000_000


def test_the_same_settings_again_draw_nothing(dataset):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    assert generate(TINY, dataset).skipped
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


def test_a_dataset_with_other_settings_is_not_overwritten(dataset):
    before = _bytes(dataset)
    with pytest.raises(UserError, match="test_items is 2, requested 3"):
        generate(SyntheticConfig(**{**TINY.to_json(), "test_items": 3}), dataset)
    assert _bytes(dataset) == before


def test_datasets_with_and_without_scenes_do_not_replace_each_other(dataset, with_scenes):
    with pytest.raises(UserError, match="scenes is 4, requested 0"):
        generate(TINY, with_scenes.manifest.parent)
    with pytest.raises(UserError, match="scenes is 0, requested 4"):
        generate(WITH_SCENES, dataset)


def test_foreign_files_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not a synthetic dataset"):
        generate(TINY, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        generate(TINY, tmp_path / "thesis.txt")
    with pytest.raises(UserError, match="cannot be written"):
        generate(TINY, tmp_path / "thesis.txt" / "out")
    assert _bytes(tmp_path) == {"thesis.txt": b"precious"}


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}', "null"])
def test_a_broken_world_file_is_a_user_error(tmp_path, content):
    (tmp_path / "world.json").write_text(content)
    with pytest.raises(UserError, match="choose a"):
        generate(TINY, tmp_path)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr("apparel_embed.data.synthetic.generate.contact_sheet", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        generate(TINY, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_zero_processes_are_refused(tmp_path):
    with pytest.raises(UserError, match="processes=0: expected at least 1"):
        generate(TINY, tmp_path / "out", processes=0)


def _tool(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *flags], capture_output=True, text=True, check=False
    )


def test_the_tool_draws_the_dataset_and_prints_the_manifest(tmp_path):
    flags = [
        f"--output={tmp_path / 'out'}",
        "--synthetic_verticals=bag",
        "--synthetic_train_items=1",
        "--synthetic_val_items=0",
        "--synthetic_test_items=1",
        "--synthetic_image_size=32",
        "--processes=1",
    ]
    done = _tool(*flags)
    assert done.returncode == 0, done.stderr
    assert f"Manifest:       {tmp_path / 'out' / 'manifest.csv'} (10 images)" in done.stdout
    again = _tool(*flags)
    assert again.returncode == 0
    assert "already exists" in again.stdout


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--synthetic_test_items=-1", "test_items"),
        ("--synthetic_image_size=big", "image_size"),
        ("--synthetic_scenes=-1", "synthetic_scenes"),
        ("--synthetic_scene_size=64", "synthetic_scene_size=64"),
        ("--processes=-1", "processes"),
        ("--synthetic_verticals=dress,sock", "unknown 'sock'"),
        ("--synthetic_verticals=", "verticals: none given"),
    ],
)
def test_the_tool_refuses_a_wrong_flag_with_one_line(tmp_path, flag, message):
    done = _tool(f"--output={tmp_path / 'out'}", flag)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
