import base64
import csv
import dataclasses
import errno
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from inspected import NASTY, pattern, write_manifest
from PIL import Image
from report_runs import Page
from rich.console import Console

from apparel_embed.common.errors import UserError
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.inspect import inspect
from apparel_embed.report.inspection import (
    check_output,
    print_inspection,
    summarise,
    write_inspection,
)

TOOL = Path(__file__).parents[2] / "tools" / "inspect_dataset.py"


@pytest.fixture(scope="module")
def written(hostile, tmp_path_factory):
    directory = tmp_path_factory.mktemp("health")
    write_inspection(hostile, directory)
    return directory


@pytest.fixture(scope="module")
def text(written):
    return (written / "index.html").read_text("utf-8")


def test_the_page_needs_no_other_file_network_or_script(text):
    for link in ("http://", "https://", 'src="/', "src='", "@import", "url(", "<link", "<script"):
        assert link not in text
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "link")
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    assert len(text) < 1e6
    ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(set(ids)) == len(ids) > 0


def test_names_from_the_manifest_are_escaped(text):
    assert NASTY not in text
    assert NASTY in Page(text).text
    assert "Größe 5.png" in Page(text).text


def test_every_finding_is_in_the_page_with_its_severity_example_and_advice(hostile, text):
    found = Page(text).text
    for finding in hostile.findings:
        assert f'<article class="found {finding.severity}">' in text
        assert finding.what in found
        assert finding.advice in found
        assert hostile.example(finding) in found


def test_images_in_the_page_are_those_of_pairs_and_sheets(hostile, text):
    embedded = [base64.b64decode(one) for one in re.findall('data:image/jpeg;base64,([^"]+)', text)]
    rows = [row for pair in hostile.pairs for row in pair.rows]
    rows += [row for sheet in hostile.sheets for item in sheet.items for row in item.rows]
    shown = [hostile.thumbnails[row] for row in rows if row in hostile.thumbnails]
    assert sorted(embedded) == sorted(shown)
    assert all(Image.open(io.BytesIO(one)).format == "JPEG" for one in embedded)
    assert text.count('<span class="cross">') == len(rows) - len(shown) == 2


def test_bars_on_the_sheets_mark_gallery_images_and_queries(text):
    roles = {
        row: (gallery != "", query != "")
        for row, gallery, query in re.findall(
            r'<div class="shot" title="row (\d+):.*?<i( class="gallery")?></i><i( class="query")?>',
            text,
            re.DOTALL,
        )
    }
    assert len(roles) == 15
    assert (roles["14"], roles["15"], roles["2"]) == ((False, True), (True, False), (True, True))


def test_the_table_of_verticals_has_counts_and_sums(hostile, text):
    (table,) = (one for one in Page(text).tables if one[0][:2] == ["vertical", "split"])
    rows = {tuple(row[:2]): row[2:] for row in table[1:]}
    assert rows["tops", "train"] == ["4", "9", "1.5", "5", "0", "0", "9", "2", "-", "-"]
    assert rows["bags", "test"] == ["1", "2", "2", "2", "1", "1", "0", "0", "0", "1"]
    assert rows["(all)", "test"] == ["2", "3", "-", "2", "1", "1", "1", "1", "1", "1"]


def test_sizes_and_reasons_are_tables(text):
    tables = {table[0][0]: table[1:] for table in Page(text).tables}
    assert tables["reason"] == [["no such file", "1"], ["truncated or damaged", "1"]]
    bars = re.findall(
        r'<th scope="row">([^<]+)</th><td><span class="bar" style="width: ([\d.]+)px"></span>(\d+)',
        text,
    )
    assert bars[-6:] == [
        ("PNG", "100.0", "11"),
        ("JPEG", "9.1", "1"),
        ("1 to 64", "10.0", "1"),
        ("64 to 128", "10.0", "1"),
        ("128 to 256", "100.0", "10"),
        ("0.7 to 0.9", "100.0", "12"),
    ]


def test_the_list_has_every_row_of_every_finding(hostile, written):
    with open(written / "findings.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(finding.rows) for finding in hostile.findings)
    (row,) = (one for one in rows if one["finding"] == "recoloured_across_items")
    assert row["detail"].startswith("outlines differ in")
    del row["detail"]
    assert row == {
        "finding": "recoloured_across_items",
        "severity": "note",
        "row": "13",
        "image": "recoloured.png",
        "item_id": "item6",
        "vertical": "bags",
        "split": "train",
        "other_row": "12",
        "other_image": "Größe 5.png",
        "other_item_id": NASTY,
        "other_vertical": "bags",
        "other_split": "train",
    }
    (row,) = (one for one in rows if one["finding"] == "small_images")
    assert (row["row"], row["other_row"], row["detail"]) == ("8", "", "30x40 px")


def test_the_summary_has_all_counts(hostile, written):
    summary = json.loads((written / "summary.json").read_text("utf-8"))
    assert summary == summarise(hostile)
    assert (summary["rows"], summary["items"], summary["verticals"]) == (15, 9, 2)
    assert summary["findings_by_severity"] == {"error": 2, "warning": 11, "note": 2}
    assert summary["images"]["unusable_by_reason"] == {
        "no such file": 1,
        "truncated or damaged": 1,
    }
    assert summary["settings"]["manifest"] == "manifest.csv"
    missing = next(one for one in summary["findings"] if one["code"] == "missing_images")
    assert (missing["count"], missing["example_row"]) == (1, 6)
    assert summary["items_by_images"]["train"]["2"] == 1
    assert summary["cells"][0]["vertical"] == "bags"


def test_the_same_input_gives_the_same_bytes_with_any_number_of_processes(
    hostile, written, tmp_path
):
    write_inspection(inspect(hostile.config, processes=1), tmp_path / "again")
    for path in sorted(written.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "again").iterdir())) == 3


def test_a_manifest_without_findings_gives_a_page_and_an_empty_list(tmp_path):
    rows = [
        (f"{split}{item}{image}.png", f"{split}{item}", "tops", split, "both")
        for split in ("train", "val", "test")
        for item in range(2)
        for image in range(2)
    ]
    manifest = write_manifest(tmp_path / "manifest.csv", rows)
    inspection = inspect(InspectConfig(manifest, images=False, min_val_items=2))
    write_inspection(inspection, tmp_path / "health")
    page = (tmp_path / "health" / "index.html").read_text("utf-8")
    assert "0 errors, 0 warnings and 0 notes" in page
    assert "Images were not opened" in page
    assert len((tmp_path / "health" / "findings.csv").read_text().splitlines()) == 1
    assert summarise(inspection)["images"] is None


def test_an_unwritable_output_is_a_one_line_error_before_anything_is_opened(
    hostile, tmp_path, monkeypatch
):
    (tmp_path / "index.html" / "x").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        write_inspection(hostile, tmp_path)
    assert str(error.value) == f"--output={tmp_path} cannot be written: Is a directory"

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # The user who runs the tests may be allowed to write everywhere.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError) as error:
        check_output(tmp_path / "new")
    assert str(error.value) == f"--output={tmp_path}/new cannot be written: Read-only file system"
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/new cannot be written: Not a directory"):
        check_output(tmp_path / "file" / "new")
    check_output(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_created_is_a_one_line_error(hostile, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output=.*file cannot be created"):
        write_inspection(hostile, tmp_path / "file")


def test_the_terminal_shows_counts_and_findings_and_names_literally(hostile):
    table = hostile.table
    named = table.set_column(
        table.column_names.index("item_id"), "item_id", [["[red]x[/red]"] * table.num_rows]
    )
    file = io.StringIO()
    print_inspection(dataclasses.replace(hostile, table=named), Console(file=file, width=100))
    printed = file.getvalue()
    assert "rows 15" in printed
    assert "2 errors, 11 warnings and 2 notes." in printed
    for finding in hostile.findings:
        assert finding.what[:40] in printed
    assert "([red]x[/red], tops, test)" in printed
    assert max(len(line) for line in printed.splitlines()) <= 100


def run_tool(manifest, output, *arguments):
    return subprocess.run(
        [sys.executable, TOOL, f"--manifest={manifest}", f"--output={output}", *arguments],
        capture_output=True,
        text=True,
    )


def test_the_binary_fails_on_findings_of_the_given_severity(tmp_path, activated):
    pattern(0).save(tmp_path / "a.png")
    manifest = write_manifest(tmp_path / "manifest.csv", [("a.png", "1", "tops", "train", "both")])
    done = run_tool(manifest, tmp_path / "out", "--processes=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [
        f"Report:  {tmp_path / 'out' / 'index.html'}",
        f"Next:    python tools/run_pipeline.py --manifest={manifest} --run_dir=runs/mine "
        "--backbone=efficientnet_v2_b0 --init_weights=efficientnetv2_b0_imagenet",
    ]
    done = run_tool(manifest, tmp_path / "out", "--noopen_images", "--fail_on=error")
    assert (done.returncode, done.stderr) == (2, "")


def test_the_binary_reports_a_missing_manifest_in_one_line(tmp_path):
    done = run_tool(tmp_path / "nowhere.csv", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "nowhere.csv: no such manifest; create one with tools/import_dataset.py"
    )
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    done = run_tool(tmp_path / "nowhere.csv", tmp_path / "file" / "out")
    assert done.returncode == 1
    # The output is checked before the manifest is read.
    assert done.stderr.strip().endswith("file/out cannot be written: Not a directory")
