import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preparing import HEADER, TOOL, contents, make_images, make_small, rejects

from apparel_embed.common.errors import UserError
from apparel_embed.data.image_pool import image_path
from apparel_embed.data.images import RejectedImage
from apparel_embed.data.prepare import PrepareConfig, prepare
from apparel_embed.data.prepare_plan import USUAL_VAL_FRACTION
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.split import evaluation_set


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


def test_two_processes_write_the_same_bytes_as_one(small, tmp_path):
    prepare(PrepareConfig(small, tmp_path / "two", shard_records=2), processes=2)
    assert contents(tmp_path / "two") == contents(small.parent / "whole")
    assert not (tmp_path / "two.partial").exists()


def test_records_are_the_usable_rows_in_manifest_order(small):
    dataset = PreparedDataset.open(small.parent / "whole")
    names = [f"{i}.png" for i in range(20) if i not in (3, 17)]
    assert dataset.column("image").tolist() == names
    assert dataset.column("record").tolist() == list(range(18))
    assert dataset.info["records"] == 18 and dataset.reject_count == 2
    assert dataset.info["counts"] == {"bags": {"train": 9}, "tops": {"train": 9}}
    assert len(dataset.read_images(range(18))) == 18
    reasons = rejects(small.parent / "whole")
    assert [(r["image"], r["row"]) for r in reasons] == [("3.png", "5"), ("17.png", "19")]
    assert reasons[0]["reason"].startswith("not an image")
    assert reasons[1]["reason"] == "no such file"


def test_finished_output_is_skipped_and_unchanged(small, caplog):
    output = small.parent / "whole"
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    with caplog.at_level("INFO"):
        dataset = prepare(PrepareConfig(small, output, shard_records=2), processes=1)
    assert "already finished, skipped" in caplog.text
    assert len(dataset) == 18
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_images_modified_since_without_a_change_in_size_are_logged(tmp_path, caplog):
    config = PrepareConfig(make_images(tmp_path, 4), tmp_path / "whole")
    prepare(config, processes=1)
    prepare(config, processes=1)
    assert "after it was prepared" not in caplog.text

    later = (tmp_path / "whole" / "dataset.json").stat().st_mtime + 5
    os.utime(tmp_path / "1.png", (later, later))
    prepare(config, processes=1)
    assert "whole: 1 image was modified after it was prepared" in caplog.text


def test_finished_output_with_other_settings_or_inputs_is_refused(small, tmp_path):
    output = small.parent / "whole"
    with pytest.raises(UserError, match="jpeg_quality was 92, now it is 50; choose another"):
        prepare(PrepareConfig(small, output, jpeg_quality=50, shard_records=2))
    other = small.with_name("other.csv")
    other.write_text(small.read_text().replace("19.png,009", "19.png,010"))
    with pytest.raises(UserError, match="the manifest differs"):
        prepare(PrepareConfig(other, output, shard_records=2))
    moved = make_images(tmp_path, 20)
    with pytest.raises(UserError, match="image files have changed"):
        prepare(PrepareConfig(moved, output, shard_records=2))


def test_output_that_is_not_a_dataset_is_refused_and_unchanged(small, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a prepared dataset"):
        prepare(PrepareConfig(small, tmp_path))
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match=r"new\.partial exists and was not made as a prepared"):
        prepare(PrepareConfig(small, tmp_path / "new"))
    assert (tmp_path / "new.partial" / "notes.txt").read_text() == "precious"
    with pytest.raises(UserError, match="cannot be created"):
        prepare(PrepareConfig(small, tmp_path / "thesis.txt" / "out"))


def test_paths_boxes_broken_files_and_val_in_one_dataset(tmp_path, caplog):
    (tmp_path / "with space").mkdir()
    split = np.zeros((40, 40, 3), np.uint8)
    split[:, 20:] = 255
    Image.fromarray(split).save(tmp_path / "with space" / "ü.png")
    (tmp_path / "empty.jpg").touch()
    uri = (tmp_path / "with space" / "ü.png").as_uri()
    absolute = tmp_path / "with space" / "ü.png"
    lines = [
        f"{HEADER},x_min,y_min,x_max,y_max",
        "with space/ü.png,1,tops,,,,",
        f"{absolute},2,tops,20,0,40,40",
        f"{uri},3,tops,0,0,20,20",
        "empty.jpg,4,tops,,,,",
        "with space,5,tops,,,,",
        "gs://bucket/a.jpg,6,tops,,,,",
        "manifest.csv,7,tops,,,,",
        "with space/ü.png,8,tops,50,50,60,60",
        "with space/ü.png,9,tops,,,,",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(lines), "utf-8")
    config = PrepareConfig(
        tmp_path / "manifest.csv", tmp_path / "out", crop_margin=0, val_fraction=0.2
    )
    dataset = prepare(config, 1)
    assert dataset.column("item_id").tolist() == ["1", "2", "3", "9"]
    assert "5 of 9 images were rejected" in caplog.text
    assert [(r["row"], r["reason"].split(":")[0]) for r in rejects(tmp_path / "out")] == [
        ("5", "empty file"),
        ("6", "is a directory"),
        ("7", "gs"),
        ("8", "not an image, or of an unknown format"),
        ("9", "box 50,50,60,60 lies outside the image of 40x40 pixels"),
    ]
    images = [Image.open(io.BytesIO(data)) for data in dataset.read_images(range(4))]
    assert [image.size for image in images] == [(40, 40), (20, 40), (20, 20), (40, 40)]
    assert images[1].convert("L").getextrema()[0] >= 250
    assert images[2].convert("L").getextrema()[1] <= 5


def test_val_groups_are_held_out(tmp_path):
    manifest = make_images(tmp_path, 16)
    config = PrepareConfig(manifest, tmp_path / "out", val_fraction=0.5, shard_records=5)
    dataset = prepare(config, 1)
    assert dataset.info["counts"] == {
        "bags": {"train": 4, "val": 4},
        "tops": {"train": 4, "val": 4},
    }
    val = set(dataset.column("item_id")[dataset.select(split="val")])
    assert not val & set(dataset.column("item_id")[dataset.select(split="train")])


@pytest.mark.parametrize(
    ("fraction", "split", "held_out"),
    [
        # Of 5 items of bags and 5 of tops. The usual share applies if the manifest has no val rows.
        (None, "test", (2, 2)),
        (None, "val", (0, 2)),
        (0.0, "test", (0, 0)),
        (0.4, "test", (4, 4)),
    ],
)
def test_without_split_val_the_usual_share_is_held_out(tmp_path, fraction, split, held_out):
    manifest = make_images(tmp_path, 22)
    header, *rows = manifest.read_text().splitlines()
    # The first item is one of tops.
    splits = [split] * 2 + ["train"] * 20
    lines = [f"{header},split", *map(",".join, zip(rows, splits))]
    manifest.write_text("\n".join(lines) + "\n")
    dataset = prepare(PrepareConfig(manifest, tmp_path / "out", val_fraction=fraction), 1)

    assert USUAL_VAL_FRACTION == 0.15
    found = [
        len(dataset.select(split="val", verticals=[vertical])) for vertical in ("bags", "tops")
    ]
    assert tuple(found) == held_out
    # The same call finds it finished.
    before = (tmp_path / "out/dataset.json").stat().st_mtime_ns
    prepare(PrepareConfig(manifest, tmp_path / "out", val_fraction=fraction), 1)
    assert (tmp_path / "out/dataset.json").stat().st_mtime_ns == before


def test_with_split_val_the_default_equals_holding_out_nothing(tmp_path):
    manifest = make_images(tmp_path, 12)
    header, *rows = manifest.read_text().splitlines()
    splits = ["val"] * 4 + ["train"] * 8
    lines = [f"{header},split", *map(",".join, zip(rows, splits))]
    manifest.write_text("\n".join(lines) + "\n")
    made = prepare(PrepareConfig(manifest, tmp_path / "out", val_fraction=0.0), 1)

    found = prepare(PrepareConfig(manifest, tmp_path / "out", val_fraction=None), 1)
    assert found.fingerprint == made.fingerprint


def test_unlabelled_images_are_prepared_without_item_id(tmp_path):
    manifest = make_images(tmp_path, 12)
    lines = manifest.read_text().splitlines()
    rows = [f"{line},train" for line in lines[1:9]]
    rows += [f"{8 + i}.png,,{('tops', 'bags')[i % 2]},unlabelled" for i in range(4)]
    manifest.write_text("\n".join([f"{HEADER},split", *rows]) + "\n")
    (tmp_path / "9.png").write_bytes(b"broken")
    config = PrepareConfig(manifest, tmp_path / "out", val_fraction=0.5, shard_records=5)
    dataset = prepare(config, 1)

    assert dataset.info["counts"] == {
        "bags": {"train": 2, "unlabelled": 1, "val": 2},
        "tops": {"train": 2, "unlabelled": 2, "val": 2},
    }
    assert dataset.select(split="unlabelled").tolist() == [8, 9, 10]
    assert dataset.select(split="unlabelled", verticals=["bags"]).tolist() == [10]
    assert dataset.column("item_id")[8:].tolist() == [""] * 3
    assert dataset.column("image")[8:].tolist() == ["8.png", "10.png", "11.png"]
    for record, name in ((8, "8.png"), (10, "11.png")):
        (jpeg,) = dataset.read_images([record])
        with Image.open(io.BytesIO(jpeg)) as found, Image.open(tmp_path / name) as original:
            shift = np.subtract(np.asarray(found, float).mean(), np.asarray(original).mean())
            assert abs(shift) < 2
    assert [row["image"] for row in rejects(tmp_path / "out")] == ["9.png"]
    with pytest.raises(UserError, match=r"unlabelled has no items .* val or test"):
        evaluation_set(dataset, "unlabelled")


def test_unlabelled_images_of_held_out_groups_are_excluded_and_logged(tmp_path, caplog):
    manifest = make_images(tmp_path, 12)
    lines = manifest.read_text().splitlines()
    # Every style has an unlabelled image, which comes before the labelled ones.
    rows = [f"{i}.png,,{('tops', 'bags')[i % 2]},unlabelled,s{i}" for i in range(4)]
    rows += [f"{line},train,s{i // 2}" for i, line in enumerate(lines[5:13])]
    manifest.write_text("\n".join([f"{HEADER},split,style", *rows]) + "\n")
    (tmp_path / "11.png").write_bytes(b"broken")
    config = PrepareConfig(
        manifest, tmp_path / "out", val_fraction=0.5, val_group_column="style", shard_records=5
    )
    with caplog.at_level("INFO"):
        dataset = prepare(config, 1)

    assert "2 unlabelled images are excluded: their style is held out" in caplog.text
    styles, val = dataset.column("style"), dataset.select(split="val")
    held = set(styles[val])
    assert set(styles[dataset.select(split="unlabelled")]) == {"s0", "s1", "s2", "s3"} - held
    assert len(dataset) == 9
    assert dataset.column("record").tolist() == list(range(9))
    # Row numbers are those of the file, including excluded rows.
    assert [(r["image"], r["row"]) for r in rejects(tmp_path / "out")] == [("11.png", "13")]
    with caplog.at_level("INFO"):
        assert len(prepare(config, 1)) == 9
    assert "already finished, skipped" in caplog.text


def test_verticals_are_renamed_or_excluded(tmp_path):
    manifest = make_images(tmp_path, 12)
    lines = manifest.read_text().splitlines()
    rows = [line.replace("bags", ("purses", "umbrellas")[i < 6]) for i, line in enumerate(lines)]
    manifest.write_text("\n".join(rows) + "\n")
    (tmp_path / "6.png").write_bytes(b"broken")
    config = PrepareConfig(
        manifest,
        tmp_path / "out",
        map_verticals={"purses": "bags", "umbrellas": ""},
        val_fraction=0.5,
        shard_records=3,
    )
    dataset = prepare(config, 1)

    counts = dataset.info["counts"]
    assert {vertical: sum(splits.values()) for vertical, splits in counts.items()} == {
        "bags": 3,
        "tops": 6,
    }
    # The validation split is drawn by the new names of the verticals: items of each.
    assert [
        len(set(dataset.column("item_id")[dataset.select(split="val", verticals=[v])]))
        for v in ("bags", "tops")
    ] == [1, 2]
    assert dataset.column("image").tolist() == [f"{i}.png" for i in (0, 1, 4, 5, 7, 8, 9, 10, 11)]
    # Row numbers are those of the file, including excluded rows.
    assert [(r["image"], r["row"]) for r in rejects(tmp_path / "out")] == [("6.png", "8")]
    assert dataset.info["settings"]["map_verticals"] == {"purses": "bags", "umbrellas": ""}
    same = dataclasses.replace(config, map_verticals={"umbrellas": "", "purses": "bags"})
    assert prepare(same, 1).fingerprint == dataset.fingerprint
    for other in ({}, {"purses": "bags"}):
        with pytest.raises(UserError, match=r"map_verticals was \{'purses': .*, now it is"):
            prepare(dataclasses.replace(config, map_verticals=other), 1)


def test_a_shard_may_have_no_usable_image(tmp_path):
    manifest = make_images(tmp_path, 6)
    for i in (2, 3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    dataset = prepare(PrepareConfig(manifest, tmp_path / "out", shard_records=2), 1)
    assert [shard["records"] for shard in dataset.info["shards"]] == [2, 0, 2]
    assert len(set(dataset.read_images([0, 1, 2, 3]))) == 4


def test_no_usable_image_is_an_error_that_can_be_fixed(tmp_path):
    manifest = make_images(tmp_path, 3)
    for i in range(3):
        (tmp_path / f"{i}.png").rename(tmp_path / f"away-{i}.png")
    config = PrepareConfig(manifest, tmp_path / "out")
    with pytest.raises(UserError, match=r"none of the 3 images .* no such file \(3\)"):
        prepare(config, 1)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    assert (tmp_path / "out.rejects.csv").read_text().count("no such file") == 3
    for i in range(3):
        (tmp_path / f"away-{i}.png").rename(tmp_path / f"{i}.png")
    assert len(prepare(config, 1)) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_side", 0), ("crop_margin", -0.1), ("jpeg_quality", 101), ("max_pixels", 10**12)),
        *(("val_fraction", 1.0), ("val_fraction", float("nan")), ("seed", -1)),
        ("shard_records", 0),
    ],
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}; expected"):
        PrepareConfig("m.csv", "out", **{name: value})


def test_paths_and_file_uris_of_images_become_paths():
    assert image_path("a/b c.jpg", "/data") == Path("/data/a/b c.jpg")
    assert image_path("/x/a.jpg", "/data") == Path("/x/a.jpg")
    assert image_path("file:///x/a%20b%23.jpg", "/data") == Path("/x/a b#.jpg")
    assert image_path("file://localhost/x.jpg", "/data") == Path("/x.jpg")
    assert image_path("100%20.jpg", "/data") == Path("/data/100%20.jpg")
    for uri in ("http://shop/a.jpg", "s3://bucket/a", "gs://b/a"):
        with pytest.raises(RejectedImage, match=f"{uri.split(':')[0]}:// is not supported"):
            image_path(uri, "/data")
    with pytest.raises(RejectedImage, match="another host"):
        image_path("file://server/a.jpg", "/data")


def test_the_tool_prints_a_summary_and_errors_of_one_line(small, tmp_path):
    def run(*options):
        given = [f"--manifest={small}", "--processes=1", "--val_fraction=0"]
        command = [sys.executable, TOOL, *given, *options]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(f"--output={small.parent / 'whole'}", "--shard_records=2")
    assert done.returncode == 0
    assert f"Prepared:  {small.parent / 'whole'} (18 images, 2 rejected)\n" in done.stdout
    done = run(f"--output={tmp_path / 'none'}", "--dry_run")
    assert done.stdout.splitlines() == [
        f"Prepared:  {tmp_path / 'none'}: to do (20 images, 20 to prepare)",
        "Next:      the same command without --dry_run (nothing was written)",
    ]
    assert not (tmp_path / "none").exists()
    wrong = run(f"--output={small.parent}")
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines() == [
        f"prepare_dataset.py: --output={small.parent} exists and is not a prepared dataset; "
        "choose another --output"
    ]
