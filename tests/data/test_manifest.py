import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data import text_tables
from apparel_embed.data.manifest import boxes_of, read_manifest, read_manifest_parts

HEADER = "image,item_id,vertical"


def write(tmp_path, text, name="manifest.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_defaults_types_and_leading_zeros(tmp_path):
    table = read_manifest(write(tmp_path, f"{HEADER}\na.jpg,007,tops\nb.jpg,7,tops\n"))
    assert table.column_names == [
        *("image", "item_id", "vertical", "split", "role"),
        *("x_min", "y_min", "x_max", "y_max"),
    ]
    assert table["item_id"].to_pylist() == ["007", "7"]
    assert table["split"].to_pylist() == ["train", "train"]
    assert table["role"].to_pylist() == ["both", "both"]
    assert table.schema.field("x_min").type == pa.float64()
    assert table["x_min"].to_pylist() == [None, None]
    assert table.schema.field("split").type == pa.string()


def test_all_columns_and_extra_ones_are_kept_as_text(tmp_path):
    table = read_manifest(
        write(
            tmp_path,
            f"shop,{HEADER},split,role,x_min,y_min,x_max,y_max\n"
            "0012,a.jpg,1,tops,val,query,-1.5,2,30,4e1\n"
            ",b.jpg,2,tops,,, , ,,\n",
        )
    )
    assert table["shop"].to_pylist() == ["0012", ""]
    assert table["split"].to_pylist() == ["val", "train"]
    assert table["role"].to_pylist() == ["query", "both"]
    assert table["x_min"].to_pylist() == [-1.5, None]
    assert table["y_max"].to_pylist() == [40.0, None]


def test_texts_that_look_like_null_or_numbers_are_kept(tmp_path):
    ids = ["NA", "null", "nan", "1e3", "true", "2020-01-01", "None"]
    rows = "".join(f"{i}.jpg,{item},tops\n" for i, item in enumerate(ids))
    assert read_manifest(write(tmp_path, f"{HEADER}\n{rows}"))["item_id"].to_pylist() == ids


def test_only_unlabelled_rows_may_lack_an_item_id(tmp_path):
    text = (
        f"{HEADER},split,role\n"
        "a.jpg,1,tops,,\n"
        "b.jpg,2,bags,train,\n"
        "c.jpg,,tops,unlabelled,\n"
        "d.jpg,,bags,unlabelled,query\n"
        "e.jpg, ,tops,unlabelled,gallery\n"
        "f.jpg, ,bags,unlabelled,\n"
        "g.jpg,3,bags,unlabelled,\n"
        "h.jpg,3,bags,unlabelled,\n"
    )
    table = read_manifest(write(tmp_path, text))
    assert table["item_id"].to_pylist() == ["1", "2", "", "", "", "", "3", "3"]
    assert table["split"].to_pylist() == ["train"] * 2 + ["unlabelled"] * 6
    assert table["vertical"].to_pylist() == ["tops", "bags"] * 2 + ["tops"] + ["bags"] * 3


def test_unlabelled_parquet_rows_may_have_null_as_item_id(tmp_path):
    columns = {
        "image": ["a.jpg", "b.jpg", "c.jpg"],
        "item_id": pa.array([7, None, None], pa.int64()),
        "vertical": ["tops"] * 3,
        "split": ["train", "unlabelled", "unlabelled"],
    }
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    table = read_manifest(tmp_path / "manifest.parquet")
    assert table["item_id"].to_pylist() == ["7", "", ""]
    columns["split"][2] = None
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    with pytest.raises(
        UserError, match=r"row 3: column 'item_id': ''; .* rows of split unlabelled may"
    ):
        read_manifest(tmp_path / "manifest.parquet")


@pytest.mark.parametrize("name", ["image", "item_id", "vertical"])
def test_nan_in_parquet_is_a_missing_value_like_null(tmp_path, name):
    columns = {"image": [1.0, 2.0], "item_id": [7.0, 8.0], "vertical": [3.0, 3.0]}
    pq.write_table(pa.table({**columns, "split": [np.nan] * 2}), tmp_path / "m.parquet")
    table = read_manifest(tmp_path / "m.parquet")
    assert table["item_id"].to_pylist() == ["7", "8"]
    assert table["split"].to_pylist() == ["train"] * 2
    columns[name][1] = np.nan
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(UserError, match=rf"row 2: column '{name}': ''; expected non"):
        read_manifest(tmp_path / "m.parquet")


def test_a_bom_windows_line_endings_and_blank_lines_are_accepted(tmp_path):
    text = f"{HEADER},split\r\na.jpg,1,tops,train\r\n\r\nb.jpg,2,tops,test\r\n\r\n"
    table = read_manifest(write(tmp_path, text, encoding="utf-8-sig"))
    assert table["image"].to_pylist() == ["a.jpg", "b.jpg"]
    assert table["split"].to_pylist() == ["train", "test"]


def test_csv_and_parquet_give_the_same_table(tmp_path):
    path = write(
        tmp_path,
        f"{HEADER},x_min,y_min,x_max,y_max,price\na.jpg,7,tops,0.1,0,10,10,5\nb.jpg,8,bags,,,,,\n",
    )
    typed = pa.table(
        {
            "image": ["a.jpg", "b.jpg"],
            "item_id": pa.array([7, 8], pa.int64()),
            "vertical": pa.array(["tops", "bags"]).dictionary_encode(),
            "x_min": pa.array([0.1, None], pa.float64()),
            "y_min": pa.array([0, None], pa.int32()),
            "x_max": pa.array([10.0, None], pa.float64()),
            "y_max": ["10", None],
            "price": pa.array([5, None], pa.int64()),
        }
    )
    pq.write_table(typed, tmp_path / "manifest.parquet")
    assert read_manifest(tmp_path / "manifest.parquet").equals(read_manifest(path))


ROW = "a.jpg,1,tops"
BOX = f"{HEADER},x_min,y_min,x_max,y_max"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a header"),
        ("\n\n", "is empty; expected a header"),
        (f"{HEADER}\n", "the manifest is empty; expected at least one row"),
        ("image,item_id\na,1\n", "no column 'vertical'; found: image, item_id"),
        (
            "image;item_id;vertical\na;1;tops\n",
            r"no column 'image'; found: image;item_id;vertical; expected names separated by commas",
        ),
        (f"{HEADER},image\n{ROW},b\n", "column 'image' appears twice"),
        (f"{HEADER},record\n{ROW},b\n", "column 'record' has a reserved name"),
        (f"{HEADER}\n{ROW}\n,2,tops\n", "row 3: column 'image': ''; expected non"),
        (f"{HEADER}\n{ROW}\nb.jpg, ,tops\n", "row 3: column 'item_id': ''; expected non-empty"),
        (f"{HEADER}\n\n\n{ROW}\nb.jpg,2,\n", "row 5: column 'vertical': ''; expected non"),
        (
            f'{HEADER},split\n"a\nb.jpg",1,tops,train\nb.jpg,2,tops,dev\n',
            "row 4: column 'split': 'dev'; expected one of train, val, test, unlabelled",
        ),
        *(
            (
                f"{HEADER},split\n{ROW},\nb.jpg,,tops,unlabelled\nc.jpg,,tops,{split}\n",
                "row 4: column 'item_id': ''; expected non-empty text; only rows of split "
                "unlabelled may lack it",
            )
            for split in ("train", "val", "test", "")
        ),
        (
            f"{HEADER}\n{ROW}\nb.jpg,2,ALL\n",
            "row 3: column 'vertical': 'ALL'; reserved for all verticals; rename it",
        ),
        # The missing item_id is not reported.
        *(
            (
                f"{HEADER},split\n{ROW},\nb.jpg,,tops,{split}\n",
                f"row 3: column 'split': '{split}'; expected one of train, val, test, unlabelled",
            )
            for split in ("unlabeled", "Unlabelled", "unlabelled ")
        ),
        (
            f"{HEADER},split\n{ROW},\nb.jpg,,,unlabelled\n",
            "row 3: column 'vertical': ''; expected non",
        ),
        (
            f"{HEADER},split\n{ROW},test\nb.jpg,2,tops,\nc.jpg,1,tops,unlabelled\n",
            "row 4: column 'split': 'unlabelled', but item_id '1' has 'test' in row 2",
        ),
        (
            f"{HEADER},split\n{ROW},\nb.jpg,2,bags,\nc.jpg,3,tops,unlabelled\n"
            "d.jpg,3,bags,unlabelled\n",
            "row 5: column 'vertical': 'bags', but item_id '3' has 'tops' in row 4",
        ),
        (
            f"{HEADER},split\n{ROW},\n\nb.jpg,,tops,unlabelled\nc.jpg,,bags,unlabelled\n",
            "row 5: column 'vertical': 'bags'; this vertical has unlabelled rows but no "
            "train rows, so there is no specialist",
        ),
        (
            f"{HEADER},split\n{ROW},\nb.jpg,2,bags,test\nc.jpg,,bags,unlabelled\n",
            "row 4: column 'vertical': 'bags'; this vertical has .* no train rows",
        ),
        (
            f"{HEADER},split\na.jpg,,tops,unlabelled\n",
            "row 2: column 'vertical': 'tops'; this vertical has .* no train rows",
        ),
        (
            f"{HEADER},role\n{ROW},Query\n",
            "row 2: column 'role': 'Query'; expected one of query, gallery, both",
        ),
        (f"{HEADER},x_min\n{ROW},1\n", "column 'x_min' without y_min, x_max, y_max"),
        (f"{BOX}\n{ROW},1,2,3,\n", "row 2: column 'y_max': ''; a box needs all four"),
        (f"{BOX}\n{ROW},,,,\nb,2,tops,,,9,\n", "row 3: column 'x_min': ''; a box needs all four"),
        (f"{BOX}\n{ROW},1,2,wide,4\n", "row 2: column 'x_max': 'wide'; expected a number"),
        (f'{BOX}\n{ROW},1,2,"3,5",4\n', "row 2: column 'x_max': '3,5'; expected a number"),
        (f"{BOX}\n{ROW},1,nan,3,4\n", "row 2: column 'y_min': 'nan'; expected a finite number"),
        (f"{BOX}\n{ROW},1,2,inf,4\n", "row 2: column 'x_max': 'inf'; expected a finite number"),
        (f"{BOX}\n{ROW},,,,\nb,2,tops,5,2,5,4\n", "row 3: column 'x_max': '5'; .* than x_min"),
        (f"{BOX}\n{ROW},1,20,3,4\n", "row 2: column 'y_max': '4'; it must be greater than y_min"),
        (f"{HEADER}\n{ROW}\nb.jpg,2\n", "row 3: 2 cells, but the header has 3"),
        (f"{HEADER}\n{ROW}\nb.jpg,2,tops,x\n", "row 3: 4 cells, but the header has 3"),
        (
            f"{HEADER}\n{ROW}\nb.jpg,2,bags\nc.jpg,1,bags\n",
            "row 4: column 'vertical': 'bags', but item_id '1' has 'tops' in row 2",
        ),
        (
            f"{HEADER},split\n{ROW},\nb.jpg,1,tops,test\n",
            "row 3: column 'split': 'test', but item_id '1' has 'train' in row 2",
        ),
        (f"{HEADER}\n{ROW}\n".encode("utf-16"), "not UTF-8"),
        (f"{HEADER}\nä.jpg,1,tops\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_errors_name_file_row_column_value_and_what_is_expected(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [[0], [6], [3, 4], [2, 5, 6], range(7)])
def test_the_first_of_several_non_numeric_texts_is_named(tmp_path, wrong):
    lines = [f"{i}.jpg,{i},tops,{'many' if i in wrong else '1' if i % 3 else ''}" for i in range(7)]
    boxed = [line + (",2,3,4" if line[-1] != "," else ",,,") for line in lines]
    path = write(tmp_path, "\n".join([f"{HEADER},x_min,y_min,x_max,y_max", *boxed]))
    with pytest.raises(UserError, match=rf"row {min(wrong) + 2}: column 'x_min': 'many'; expected"):
        read_manifest(path)


def test_parquet_errors_count_rows_from_one(tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(
        pa.table({"image": ["a", "b"], "item_id": [1, None], "vertical": ["t"] * 2}), path
    )
    with pytest.raises(UserError, match="row 2: column 'item_id': ''"):
        read_manifest(path)
    pq.write_table(pa.table({"image": [["a"]], "item_id": [1], "vertical": ["t"]}), path)
    with pytest.raises(UserError, match=r"column 'image' is list.*text or numbers"):
        read_manifest(path)
    path.write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_manifest(path)


def test_path_errors(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a directory"):
        read_manifest(tmp_path)


TEXT = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r\n"), min_size=1
).filter(lambda text: text.strip())


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.tuples(TEXT, TEXT, st.text("0123456789 ,\"'", min_size=1)), min_size=1))
def test_any_text_survives_csv_but_spaces_around_item_ids(tmp_path_factory, rows):
    rows = [(image, item, extra) for image, item, extra in rows if item.strip()]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["image", "item_id", "vertical", "extra"])
    writer.writerows([image, item, "tops", extra] for image, item, extra in rows)
    path = write(tmp_path_factory.mktemp("csv"), file.getvalue())
    table = read_manifest(path)
    images, items, extras = map(list, zip(*rows)) if rows else ([], [], [])
    items = pc.utf8_trim_whitespace(pa.array(items, pa.string())).to_pylist()
    for name, values in (("image", images), ("item_id", items), ("extra", extras)):
        assert table[name].to_pylist() == values


def read_parts(path, reserved=()):
    return pa.concat_tables(read_manifest_parts(str(path), reserved)).to_pydict()


def test_reading_in_parts_needs_only_images_and_keeps_all_columns_as_text(tmp_path):
    path = write(tmp_path, '\ufeffimage,sku,note\na.jpg,007,\n"b, c.jpg",1,"two\nlines"')
    assert read_parts(path) == {
        "image": ["a.jpg", "b, c.jpg"], "sku": ["007", "1"], "note": ["", "two\nlines"],
    }  # fmt: skip


def test_a_parquet_manifest_reads_like_csv(tmp_path):
    columns = {"image": ["a.jpg", "b.jpg"], "sku": [7, None], "x_min": [None, 1.5],
               "y_min": [None, 0.0], "x_max": [None, 4.0], "y_max": [None, 5.0]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    found = read_parts(tmp_path / "m.parquet")
    assert found["sku"] == ["7", ""]
    assert boxes_of(pa.table(found)) == [None, (1.5, 0.0, 4.0, 5.0)]


def test_parquet_ids_read_as_in_any_manifest_and_rows_are_counted_across_parts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(text_tables, "_ROWS_AT_ONCE", 2)
    ids = [4006381333930.0, float("nan"), 7.0, 7.5]
    table = pa.table({"image": list("abcd"), "item_id": ids})
    pq.write_table(table.slice(0, 3), tmp_path / "m.parquet")
    assert read_parts(tmp_path / "m.parquet")["item_id"] == ["4006381333930", "", "7"]
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(
        UserError, match=r"m.parquet: row 4: column 'item_id': 7.5; expected text or"
    ):
        read_parts(tmp_path / "m.parquet")


def test_a_manifest_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "_BYTES_AT_ONCE", 200)
    path = write(tmp_path, "\n".join(["image", *(f"{number:05}.jpg" for number in range(500))]))
    parts = list(read_manifest_parts(str(path)))
    assert len(parts) > 5
    assert pa.concat_tables(parts)["image"].to_pylist() == [f"{n:05}.jpg" for n in range(500)]
    path.write_text(path.read_text() + "\n\n" + " \n", "utf-8")
    with pytest.raises(UserError, match="row 503: column 'image': ' '; expected non-empty"):
        read_parts(path)


PART_BOX = "image,x_min,y_min,x_max,y_max"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sku", "1"], "no column 'image'; found: sku"),
        (["image,image", "a,b"], "column 'image' appears twice"),
        (["image,embedding", "a,b"], "column 'embedding' has a reserved name"),
        (["image,x_min", "a,1"], "column 'x_min' without y_min, x_max, y_max; a box needs all of"),
        ([PART_BOX, "a,,,,", "b,1,2,3,"], "row 3: column 'y_max': ''; a box needs all four"),
        ([PART_BOX, "a,1,2,3,x"], "row 2: column 'y_max': 'x'; expected a number"),
        ([PART_BOX, "a,3,0,3,1"], "row 2: column 'x_max': '3'; it must be greater than x_min"),
        ([PART_BOX, "a,-inf,0,3,1"], "row 2: column 'x_min': '-inf'; expected a finite"),
        ([PART_BOX, "a,nan,0,3,1"], "row 2: column 'x_min': 'nan'; expected a finite"),
        (["image,sku", "a,1", "b"], "row 3: 1 cells, but the header has 2"),
    ],
)
def test_errors_in_parts_name_file_row_and_column(tmp_path, lines, message):
    with pytest.raises(UserError, match=f"manifest.csv: {message}"):
        read_parts(write(tmp_path, "\n".join(lines) + "\n"), reserved=("embedding",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such manifest"),
        ("latin.csv", "image\nü.jpg\n".encode("latin-1"), "row 2: not UTF-8 text"),
        ("text.parquet", b"image\na.jpg\n", "cannot be read"),
        ("empty.csv", b"", "the file is empty; expected a header"),
    ],
)
def test_files_that_are_not_manifests_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        read_parts(tmp_path / name)
