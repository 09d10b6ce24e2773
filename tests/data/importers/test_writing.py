import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from data.importers.shop_trees import (
    LUMA_COLUMNS,
    LUMA_PATTERN,
    LUMA_ROLES,
    LUMA_VERTICALS,
    luma_config,
    make_luma,
)

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.importing import (
    ImportConfig,
    compare_counts,
    import_dataset,
    manifest_table,
    write_manifest,
)
from apparel_embed.data.manifest import read_manifest

TOOL = Path(__file__).parents[3] / "tools" / "import_dataset.py"
TABLE = pa.table(
    {
        "note": ["a,b", 'say "c"\nd', "", "ä"],
        "x_max": pa.array([5.0, None, 0.5, None]),
        "x_min": pa.array([1.25, None, 0.1, None]),
        "image": ["1.jpg", "2 3.jpg", "ä.jpg", "-"],
        "y_min": pa.array([0.0, None, 0.0, None]),
        "split": ["train", "test", "train", "unlabelled"],
        "y_max": pa.array([4.0, None, 1e6, None]),
        "vertical": ["tops"] * 4,
        "role": ["both"] * 4,
        "item_id": ["007", "NA", "1e3", ""],
    }
)


@pytest.mark.parametrize("name", ["m.csv", "m.parquet", "M.PQ"])
def test_a_written_manifest_is_read_back_unchanged(tmp_path, name):
    table = manifest_table(TABLE)
    assert write_manifest(table, tmp_path / "new" / name)
    assert read_manifest(tmp_path / "new" / name).equals(table.select(table.column_names))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_columns_are_in_order_and_the_box_is_left_out_if_empty():
    known = ["image", "item_id", "vertical", "split", "role", "x_min", "y_min", "x_max", "y_max"]
    assert manifest_table(TABLE).column_names == [*known, "note"]
    assert manifest_table(TABLE.slice(3)).column_names == [*known[:5], "note"]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_bytes_do_not_depend_on_chunks_and_the_same_manifest_may_be_written_again(tmp_path, name):
    table = manifest_table(TABLE)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    assert write_manifest(table, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert not write_manifest(pieces, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_other_files_are_never_overwritten(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"--output=.*m.csv exists with other content"):
        write_manifest(manifest_table(TABLE), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_outputs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"m.json: expected a name that ends in .csv"):
        import_dataset(ImportConfig("table", tmp_path, tmp_path / "m.json"))
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match=r"d.csv is a directory"):
        import_dataset(ImportConfig("table", tmp_path, tmp_path / "d.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"m.csv cannot be written: (File exists|Not a directory)"):
        write_manifest(manifest_table(TABLE), tmp_path / "file" / "m.csv")


def test_differing_counts_are_reported_with_both_numbers():
    found, published = {"images": 1234, "items": 5}, {"images": 1235, "items": 5, "pairs": 2}
    assert compare_counts(found, published) == (
        "images: found 1,234, but 1,235 were published",
        "pairs: found 0, but 2 were published",
    )


def run_tool(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True)


def test_the_tool_prints_what_it_wrote_and_what_to_run_next(tmp_path, activated):
    make_luma(tmp_path)
    output = tmp_path / "manifest.csv"
    done = run_tool(
        "--format=table",
        f"--root={tmp_path}",
        f"--output={output}",
        f"--pattern={LUMA_PATTERN}",
        "--columns=" + ",".join(f"{name}:{source}" for name, source in LUMA_COLUMNS.items()),
        "--map_verticals=" + ",".join(f"{old}:{new}" for old, new in LUMA_VERTICALS.items()),
        "--map_roles=" + ",".join(f"{old}:{new}" for old, new in LUMA_ROLES.items()),
        "--split_by=style_id",
        "--test_fraction=0.3",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "| vertical | train items | train rows | test items | test rows |",
        "|----------|-------------|------------|------------|-----------|",
        "| hoodies  |           8 |         16 |          4 |         8 |",
        "| shorts   |           4 |          8 |          2 |         4 |",
        "| tees     |           4 |          8 |          2 |         4 |",
        "| ALL      |          16 |         32 |          8 |        16 |",
        f"Manifest:  {output} (48 rows)",
        f"Next:      python tools/inspect_dataset.py --manifest={output} "
        f"--output={tmp_path / 'health'}",
        f"Then:      python tools/run_pipeline.py --manifest={output} --run_dir=runs/mine "
        "--backbone=efficientnet_v2_b0 --init_weights=efficientnetv2_b0_imagenet",
    ]
    # The library writes the same bytes.
    import_dataset(luma_config(tmp_path, tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_bytes() == output.read_bytes()
