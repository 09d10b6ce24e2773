import pyarrow as pa
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.importing import (
    ImportConfig,
    import_dataset,
    manifest_table,
    write_manifest,
)
from apparel_embed.data.manifest import read_manifest

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
def test_what_is_written_is_read_as_it_was(tmp_path, name):
    table = manifest_table(TABLE)
    assert write_manifest(table, tmp_path / "new" / name)
    assert read_manifest(tmp_path / "new" / name).equals(table.select(table.column_names))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_columns_are_in_order_and_boxes_only_where_there_are_some():
    known = ["image", "item_id", "vertical", "split", "role", "x_min", "y_min", "x_max", "y_max"]
    assert manifest_table(TABLE).column_names == [*known, "note"]
    assert manifest_table(TABLE.slice(3)).column_names == [*known[:5], "note"]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_bytes_do_not_depend_on_chunks_and_the_same_is_written_twice(tmp_path, name):
    table = manifest_table(TABLE)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    assert write_manifest(table, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert not write_manifest(pieces, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_something_else_is_never_overwritten(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"--output=.*m.csv exists and holds something else"):
        write_manifest(manifest_table(TABLE), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_outputs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"m.json is not allowed; its name must end in .csv"):
        import_dataset(ImportConfig("table", tmp_path, tmp_path / "m.json"))
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match=r"d.csv is a directory"):
        import_dataset(ImportConfig("table", tmp_path, tmp_path / "d.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"m.csv cannot be written: (File exists|Not a directory)"):
        write_manifest(manifest_table(TABLE), tmp_path / "file" / "m.csv")
