import dataclasses
import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from data.importers.shop_trees import draw, luma_config, make_luma

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.derive import DeriveOptions
from apparel_embed.data.importers.importing import ImportConfig, import_dataset
from apparel_embed.data.importers.layout import LayoutOptions
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.manifest import read_manifest


def import_table(root, text, name="list.csv", encoding="utf-8", **changes):
    """Writes a table to `root` and imports it."""
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    options = LayoutOptions(root / name)
    config = ImportConfig("table", root, root / "manifest.csv", options)
    return import_dataset(dataclasses.replace(config, **changes))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A directory of images, 8 wide and 6 high."""
    root = tmp_path_factory.mktemp("shop")
    draw(root, ["a.jpg", "b.jpg", "c d/ä.jpg", "e.jpg"])
    return root


@pytest.fixture
def shop(images, tmp_path):
    """A fresh directory with links to the images."""
    for path in images.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def test_items_verticals_and_roles_are_derived_from_file_names(tmp_path):
    names = make_luma(tmp_path)
    (tmp_path / "images" / "list.txt").write_text("no image")
    result = import_dataset(luma_config(tmp_path, tmp_path / "manifest.csv"))

    table = read_manifest(tmp_path / "manifest.csv")
    rows = {row["image"]: row for row in table.to_pylist()}
    assert sorted(rows) == sorted(names)
    gray = rows["images/msh02-gray_back.jpg"]
    assert {name: gray[name] for name in ("item_id", "style_id", "vertical", "role", "view")} == {
        "item_id": "msh02-gray",
        "style_id": "msh02",
        "vertical": "shorts",
        "role": "query",
        "view": "back",
    }
    # mh and wh are the same vertical.
    assert sorted(pc.unique(table["vertical"]).to_pylist()) == ["hoodies", "shorts", "tees"]
    tested = table.filter(pc.equal(table["split"], "test"))
    # One of three styles in each vertical, two of six for hoodies, each in both colours.
    assert pc.count_distinct(tested["style_id"]).as_py() == 4
    assert pc.count_distinct(tested["item_id"]).as_py() == 8
    assert result.notes == ("left out: files without an image extension: 1 (e.g. images/list.txt)",)


def test_the_same_data_give_the_same_bytes_and_other_manifests_are_not_overwritten(tmp_path):
    make_luma(tmp_path)
    config = luma_config(tmp_path, tmp_path / "manifest.csv")
    assert import_dataset(config).is_new
    first = config.output.read_bytes()
    assert not import_dataset(config).is_new
    assert config.output.read_bytes() == first
    import_dataset(dataclasses.replace(config, output=tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_bytes() == first

    other = dataclasses.replace(config, split=SplitOptions(test_fraction=0.6, by="style_id"))
    with pytest.raises(UserError, match=r"manifest.csv exists with other content"):
        import_dataset(other)
    assert config.output.read_bytes() == first


def test_the_same_table_in_any_file_format_gives_the_same_manifest(shop):
    rows = [
        {"photo": "a.jpg", "sku": "007", "category": "tops", "x_min": 0, "price": "5"},
        {"photo": "c d/ä.jpg", "sku": "8", "category": "bags", "x_min": None, "price": ""},
    ]
    for row in rows:
        box = [5, 1, 4] if row["x_min"] == 0 else [None] * 3
        row.update(zip(("x_max", "y_min", "y_max"), box))
    columns = {"image": "photo", "item_id": "sku", "vertical": "category"}
    names = list(rows[0])
    lines = [[("" if row[name] is None else str(row[name])) for name in names] for row in rows]
    texts = {
        f"{number}.{kind}": line_end.join(mark.join(line) for line in [names, *lines])
        for number, (kind, mark, line_end) in enumerate(
            [("csv", ",", "\n"), ("csv", ";", "\r\n"), ("tsv", "\t", "\n")]
        )
    }
    texts["3.jsonl"] = "\n".join(json.dumps(row) for row in rows)
    found = {}
    for name, text in texts.items():
        output = shop / f"manifest-{name}.csv"
        import_table(shop, text, name, derive=DeriveOptions(columns=columns), output=output)
        found[name] = output.read_bytes()
    pq.write_table(pa.Table.from_pylist(rows), shop / "4.parquet")
    import_dataset(
        ImportConfig(
            "table",
            shop,
            shop / "manifest-4.csv",
            LayoutOptions(shop / "4.parquet"),
            DeriveOptions(columns=columns),
        )
    )
    found["4.parquet"] = (shop / "manifest-4.csv").read_bytes()
    assert len(set(found.values())) == 1
    table = read_manifest(shop / "manifest-4.csv")
    assert table["image"].to_pylist() == ["a.jpg", "c d/ä.jpg"]
    assert table["item_id"].to_pylist() == ["007", "8"]
    assert table["x_max"].to_pylist() == [5.0, None]
    assert table["price"].to_pylist() == ["5", ""]


def test_paths_of_every_kind_are_found_and_written_relative_to_the_manifest(shop, images):
    text = (
        "\ufeffimage,item_id,vertical,split\r\n"
        f"{images}/a.jpg,1,tops,train\r\n"
        f"{shop}/b.jpg,1,tops,train\r\n"
        ".\\c d\\ä.jpg,2,tops,train\r\n"
        "https://cdn.shop/e.jpg,3,tops,test\r\n"
    )
    result = import_table(shop, text)
    written = read_manifest(shop / "manifest.csv")["image"].to_pylist()
    assert written == [f"{images}/a.jpg", "b.jpg", "c d/ä.jpg", "https://cdn.shop/e.jpg"]
    assert result.notes[0].startswith("images that are URLs, which preparing does not")


BOX = "image,item_id,vertical,x_min,y_min,x_max,y_max\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,item_id,vertical\na.jpg,1,tops\nb.jpg,2,bags,x\n", "row 3: 4 cells"),
        ("image,item_id,vertical\na.jpg,1,tops\nb.j", "row 3: 1 cells, but the header has 3"),
        (
            "image,item_id,vertical\na.jpg,1,tops\n\nnone.jpg,2,bags\n",
            "row 4: column 'image': 'none.jpg'; no such file in",
        ),
        (
            "image,item_id,vertical\r\na.jpg,1,tops\r\n/none/b.jpg,2,bags\r\n",
            "row 3: column 'image': '/none/b.jpg'; no such file in",
        ),
        (
            "image,item_id,vertical\na.jpg,1,tops\nc d,2,tops\n",
            "row 3: column 'image': 'c d'; no such file in .*; the name exists but is not a file",
        ),
        (
            "\ufeffimage,item_id,vertical\nb.jpg,1,tops\nC d/Ä.jpg,2,tops\n",
            "row 3: column 'image': 'C d/Ä.jpg'; no such file in",
        ),
        (
            f"{BOX}a.jpg,1,tops,,,,\nb.jpg,2,bags,1,1,20,5\n",
            "row 3: column 'x_max': 20.0; the box extends beyond 'b.jpg' of 8x6 pixels",
        ),
        (
            f"{BOX}a.jpg,1,tops,3,1,3,5\n",
            "row 2: column 'x_max': '3'; it must be greater than x_min",
        ),
        (f"{BOX}a.jpg,1,tops,3,1,5,\n", "row 2: column 'y_max': .*; a box needs all four numbers"),
        (
            "image,item_id,vertical\na.jpg,1,tops\nb.jpg,1,tops\n./a.jpg,1,tops\n",
            "row 4: column 'image': 'a.jpg'; row 2 has the same image, box and item",
        ),
        (
            "image,item_id,vertical\na.jpg,1,tops\nb.jpg,2,bags\ne.jpg,1,bags\n",
            "row 4: column 'vertical': 'bags', but item_id '1' has 'tops' in row 2; an item",
        ),
        (
            "image,item_id,vertical,split\na.jpg,1,tops,train\nb.jpg,2,tops,dev\n",
            "row 3: column 'split': 'dev'; expected one of train, val, test, unlabelled",
        ),
        (
            "image,item_id,vertical,role\na.jpg,1,tops,query\nb.jpg,2,tops,shop\n",
            "row 3: column 'role': 'shop'; expected one of query, gallery, both",
        ),
        (
            "image,item_id,vertical,split\na.jpg,1,tops,train\nb.jpg,1,tops,test\n",
            "row 3: column 'split': 'test', but item_id '1' has 'train' in row 2",
        ),
        ("image,item_id,vertical\na.jpg,,tops\n", "row 2: column 'item_id': ''; expected non"),
        ("image,item_id,vertical\n,1,tops\n", "row 2: column 'image': ''; expected non"),
        ("image,item_id,vertical\na.jpg,1,tops\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_broken_tables_give_a_one_line_error_with_file_and_row_and_no_manifest(shop, text, message):
    with pytest.raises(UserError, match=message) as caught:
        import_table(shop, text)
    assert str(caught.value).startswith(f"{shop}/list.csv: ")
    assert "\n" not in str(caught.value)
    assert not (shop / "manifest.csv").exists()


def test_errors_in_rows_made_from_files_name_the_file(tmp_path):
    make_luma(tmp_path, styles=1)
    draw(tmp_path, ["images/mh01-gray_side.jpg"])
    message = (
        r"^\S*/images/mh01-gray_side.jpg: column 'role': 'side'; .*; to map: side \(--map_roles=old"
    )
    with pytest.raises(UserError, match=message):
        import_dataset(luma_config(tmp_path, tmp_path / "manifest.csv"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("photo,item_id,vertical", "no column 'image'; found: photo, item_id, vertical; define"),
        ("image,item_id,kind", r"no column 'vertical'; .*, or --vertical=NAME|of --pattern or --v"),
        ("image,item_id,vertical,record", r"column 'record' has a reserved name; rename it"),
        ("image,item_id,vertical,x_min", "no column 'y_min'; a box needs all of x_min, y_min"),
    ],
)
def test_errors_for_missing_or_reserved_columns_name_the_flag_to_use(shop, header, message):
    row = ",".join(["a.jpg", "1", "tops", "9"][: header.count(",") + 1])
    with pytest.raises(UserError, match=message) as caught:
        import_table(shop, f"{header}\n{row}\n")
    assert str(caught.value).startswith(f"{shop}/list.csv: ")


def test_skipped_rows_are_counted_in_notes(shop):
    text = (
        "image,item_id,vertical\na.jpg,1,blouses\na.jpg,1,blouses\nnone.jpg,2,tops\nb.jpg,2,tops\n"
        "e.jpg,3,umbrellas\n"
    )
    result = import_table(
        shop,
        text,
        missing="skip",
        duplicates="skip",
        verticals={"blouses": "tops", "umbrellas": ""},
    )
    assert read_manifest(shop / "manifest.csv").select(["image", "vertical"]).to_pylist() == [
        {"image": "a.jpg", "vertical": "tops"},
        {"image": "b.jpg", "vertical": "tops"},
    ]
    assert result.notes == (
        "left out: rows dropped by --map_verticals: 1",
        "left out: rows whose image is missing: 1 of 4 (e.g. none.jpg)",
        "left out: rows with the image, box and item of an earlier row: 1",
        "no rows of split test, so no model can be evaluated; --test_fraction holds some out",
    )


def test_mapping_a_missing_column_is_refused(shop):
    with pytest.raises(UserError, match="--map_roles: the dataset has no column 'role' to map"):
        import_table(shop, "image,item_id,vertical\na.jpg,1,tops\n", roles={"a": "query"})


def test_a_vertical_with_the_reserved_name_is_refused_unless_it_is_mapped(shop):
    text = "image,item_id,vertical\na.jpg,1,ALL\n"
    with pytest.raises(UserError, match=r"list.csv: row 2: column 'vertical': 'ALL'; reserved"):
        import_table(shop, text)
    assert (
        import_table(shop, text, verticals={"ALL": "tops"}).table["vertical"][0].as_py() == "tops"
    )


def test_boxes_are_not_checked_if_the_user_says_so(shop):
    import_table(shop, f"{BOX}a.jpg,1,tops,1,1,20,5\n", check_boxes=False)
    assert read_manifest(shop / "manifest.csv")["x_max"].to_pylist() == [20.0]


def test_one_vertical_may_be_given_for_all_rows(shop):
    text = "image,item_id\na.jpg,1\nb.jpg,2\n"
    import_table(shop, text, options=LayoutOptions(shop / "list.csv", vertical="shoes"))
    assert read_manifest(shop / "manifest.csv")["vertical"].to_pylist() == ["shoes", "shoes"]


def test_folders_can_be_combined_with_patterns_and_mappings(tmp_path):
    draw(tmp_path, ["mugs/1/shop_1.jpg", "mugs/1/street_1.jpg", "tops/1/shop_1.jpg"])
    config = ImportConfig(
        "folders",
        tmp_path,
        tmp_path / "m.csv",
        LayoutOptions(),
        DeriveOptions(pattern="/(?P<role>[a-z]+)_[^/]*$"),
        verticals={"mugs": "cups"},
        roles={"shop": "gallery", "street": "query"},
    )
    import_dataset(config)
    table = read_manifest(tmp_path / "m.csv")
    assert table["item_id"].to_pylist() == ["mugs/1", "mugs/1", "tops/1"]
    assert table["vertical"].to_pylist() == ["cups", "cups", "tops"]
    assert table["role"].to_pylist() == ["gallery", "query", "gallery"]


def test_wrong_settings_are_refused_first(tmp_path):
    with pytest.raises(UserError, match="--format=zip is unknown; expected one of deepfashion_in"):
        import_dataset(ImportConfig("zip", tmp_path, tmp_path / "m.csv"))
    with pytest.raises(UserError, match="none is not a directory"):
        import_dataset(ImportConfig("folders", tmp_path / "none", tmp_path / "m.csv"))
    with pytest.raises(UserError, match=r"ends in .csv or .parquet"):
        import_dataset(ImportConfig("folders", tmp_path, tmp_path / "m.txt"))


def test_an_export_with_several_images_per_cell_and_paths_from_the_root_is_imported(shop):
    outside = str(shop / "e.jpg")
    text = f"item_id,vertical,photos\nö1,tops,/a.jpg|/b.jpg\n2,tops,\\c d\\ä.jpg|{outside}\n"
    result = import_table(
        shop,
        text,
        encoding="cp1252",
        options=LayoutOptions(shop / "list.csv", encoding="cp1252"),
        derive=DeriveOptions(columns={"image": "photos"}, image_separator="|"),
    )
    assert result.table["image"].to_pylist() == ["a.jpg", "b.jpg", "c d/ä.jpg", "e.jpg"]
    assert result.table["item_id"].to_pylist() == ["ö1", "ö1", "2", "2"]
    with pytest.raises(UserError, match=r"row 2: column 'image': '/none.jpg'; no such file in"):
        import_table(shop, "image,item_id,vertical\n/none.jpg,1,tops\n/a.jpg,1,tops\n")


@pytest.mark.parametrize("folder", ["", "C:\\Shop\\Bilder\\"])
def test_a_german_excel_export_is_imported(shop, folder):
    rows = ["Artikelnr;Warengruppe;Ansicht;Bild;Preis (€)"]
    rows += [f"007;Blusen & Hemden;Vorderansicht;{folder}a.jpg;19,95"]
    rows += [f"007;Blusen & Hemden;Rückansicht;{folder}b.jpg;19,95"]
    columns = {"image": "Bild", "item_id": "Artikelnr", "vertical": "Warengruppe"}
    columns["role"] = "Ansicht"
    options = DeriveOptions(columns=columns)
    if folder:
        columns["image"] = "{file}"
        options = DeriveOptions(r"(?P<file>[^/\\]+)$", "Bild", columns=columns)
    names = {"Vorderansicht": "gallery", "Rückansicht": "query"}
    for encoding in ("utf-8-sig", "cp1252"):
        read_as = "utf-8" if encoding == "utf-8-sig" else encoding
        table = import_table(
            shop,
            "\r\n".join(rows),
            f"{encoding}.csv",
            encoding,
            options=LayoutOptions(shop / f"{encoding}.csv", encoding=read_as),
            derive=options,
            roles=names,
            output=shop / f"manifest-{encoding}.csv",
        ).table
        assert table["image"].to_pylist() == ["a.jpg", "b.jpg"]
        assert table["item_id"].to_pylist() == ["007", "007"]
        assert table["vertical"].unique().to_pylist() == ["Blusen & Hemden"]
        assert table["role"].to_pylist() == ["gallery", "query"]
        assert table["Preis (€)"].to_pylist() == ["19,95", "19,95"]
