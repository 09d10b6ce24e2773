import dataclasses
import io

import pyarrow.parquet as pq
import pytest
from inspected import NASTY, pattern, write_manifest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.inspect import inspect
from apparel_embed.data.manifest import read_manifest


def lines_of(inspection, code):
    """Returns the manifest lines of a finding, as pairs if it has others."""
    (finding,) = (one for one in inspection.findings if one.code == code)
    lines = inspection.file_rows[finding.rows].tolist()
    if finding.others is None:
        return lines
    return list(zip(lines, inspection.file_rows[finding.others].tolist()))


def codes_of(inspection):
    return {finding.code for finding in inspection.findings}


def test_exactly_the_planted_problems_are_found_in_their_rows(hostile):
    assert {code: lines_of(hostile, code) for code in codes_of(hostile)} == {
        "untrainable_vertical": [],
        "exact_across_splits": [(5, 3)],
        "exact_across_items": [(11, 10)],
        "near_across_items": [(4, 2)],
        "near_answer": [(14, 15)],
        "recoloured_across_items": [(13, 12)],
        "missing_images": [6],
        "broken_images": [7],
        "small_images": [8],
        "blank_images": [9],
        "items_with_few_images": [10, 11, 12, 13, 16],
        "item_ids_alike": [(16, 2)],
        "unanswered_queries": [5],
        "vertical_without_answers": [],
        "no_val_split": [],
    }


def test_findings_are_sorted_by_severity(hostile):
    severities = [finding.severity for finding in hostile.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert hostile.has_finding("error") and hostile.has_finding("note")


def test_a_more_severe_finding_meets_the_requested_severity(hostile):
    errors = tuple(one for one in hostile.findings if one.severity == "error")
    notes = tuple(one for one in hostile.findings if one.severity == "note")
    assert dataclasses.replace(hostile, findings=errors).has_finding("warning")
    assert not dataclasses.replace(hostile, findings=notes).has_finding("warning")
    assert not dataclasses.replace(hostile, findings=()).has_finding("note")


def test_an_example_names_rows_images_and_labels(hostile):
    (finding,) = (one for one in hostile.findings if one.code == "exact_across_splits")
    assert hostile.example(finding) == (
        "row 5: b_copy.png (item3, tops, test) and row 3: b.png (Item1, tops, train)"
    )
    (finding,) = (one for one in hostile.findings if one.code == "small_images")
    assert hostile.example(finding) == "row 8: small.png (item2, tops, train): 30x40 px"


def test_pairs_are_shown_with_both_images(hostile):
    pairs = {pair.code: pair for pair in hostile.pairs}
    assert set(pairs) == {
        code for code in codes_of(hostile) if code.split("_")[0] in ("exact", "near", "recoloured")
    }
    pair = pairs["recoloured_across_items"]
    sizes = [Image.open(io.BytesIO(hostile.thumbnails[row])).size for row in pair.rows]
    assert sizes == [(72, 96), (72, 96)]


def test_every_vertical_has_a_contact_sheet(hostile):
    assert [sheet.vertical for sheet in hostile.sheets] == ["bags", "tops"]
    assert NASTY in [item.item for item in hostile.sheets[0].items]
    shown = [row for sheet in hostile.sheets for item in sheet.items for row in item.rows]
    assert sorted(shown) == list(range(15))
    # All except the missing and the truncated image.
    assert hostile.thumbnails.keys() == {*range(15)} - {4, 5}


def test_a_second_row_of_the_same_image_is_opened_once(hostile):
    assert (hostile.table.num_rows, hostile.distinct, len(hostile.opened.rows)) == (15, 14, 14)


def test_without_images_only_the_table_is_checked(hostile):
    found = inspect(dataclasses.replace(hostile.config, images=False))
    assert codes_of(found) == {
        "untrainable_vertical",
        "exact_across_items",
        "items_with_few_images",
        "item_ids_alike",
        "unanswered_queries",
        "vertical_without_answers",
        "no_val_split",
    }
    assert (found.opened, found.pairs, found.sheets, found.thumbnails) == (None, (), (), {})


def test_a_sample_opens_its_size_and_the_images_shown(hostile):
    config = dataclasses.replace(hostile.config, sample=3, sheet_items=0)
    found = inspect(config, processes=1)
    assert len(found.opened.rows) == 3
    again = inspect(config, processes=1)
    assert found.opened.rows.tolist() == again.opened.rows.tolist()
    shown = inspect(dataclasses.replace(config, sheet_items=20), processes=1)
    assert len(shown.opened.rows) == 14
    # A sample larger than the dataset opens all images.
    assert len(inspect(dataclasses.replace(config, sample=99), processes=1).opened.rows) == 14


def test_one_row_is_enough(tmp_path):
    pattern(0).save(tmp_path / "a.png")
    manifest = write_manifest(tmp_path / "manifest.csv", [("a.png", "1", "tops", "train", "both")])
    found = inspect(InspectConfig(manifest), processes=1)
    assert codes_of(found) == {
        "untrainable_vertical",
        "items_with_few_images",
        "no_val_split",
        "no_test_split",
    }
    assert len(found.sheets) == 1


def test_the_inspection_works_if_no_image_can_be_opened(tmp_path):
    rows = [(f"{number}.png", "1", "tops", "train", "both") for number in range(3)]
    found = inspect(InspectConfig(write_manifest(tmp_path / "m.csv", rows)), processes=1)
    assert lines_of(found, "missing_images") == [2, 3, 4]
    (finding,) = (one for one in found.findings if one.code == "missing_images")
    assert finding.severity == "error"
    assert not found.opened.is_usable.any()


def test_garments_in_one_image_are_compared_within_their_boxes(tmp_path):
    pattern(0, (400, 300)).save(tmp_path / "street.png")
    pattern(0, (400, 300)).crop((0, 0, 200, 300)).save(tmp_path / "left.png")
    header = ("image", "item_id", "vertical", "x_min", "y_min", "x_max", "y_max")
    rows = [
        ("street.png", "1", "tops", 0, 0, 200, 300),
        ("street.png", "2", "tops", 200, 0, 400, 300),
        ("street.png", "3", "tops", 195, 5, 420, 300),
        ("left.png", "4", "tops", "", "", "", ""),
    ]
    manifest = write_manifest(tmp_path / "manifest.csv", rows, header)
    found = inspect(InspectConfig(manifest, crop_margin=0), processes=1)
    assert lines_of(found, "near_across_items") == [(5, 2)]
    assert lines_of(found, "box_beyond_image") == [4]
    assert found.distinct == 4


def test_row_numbers_are_those_in_the_file(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        'image,item_id,vertical,note\r\n\r\na.png,1,tops,"two\r\nlines"\r\nb.png,1,tops,\r\n'
    )
    config = InspectConfig(manifest, images=False)
    assert inspect(config).file_rows.tolist() == [3, 5]
    table = read_manifest(manifest)
    pq.write_table(table, tmp_path / "manifest.parquet")
    config = InspectConfig(tmp_path / "manifest.parquet", images=False)
    assert inspect(config).file_rows.tolist() == [1, 2]
    # Without a line ending at the end of the file.
    manifest.write_text("image,item_id,vertical\na.png,1,tops\nb.png,1,tops")
    assert inspect(InspectConfig(manifest, images=False)).file_rows.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("name", "low", "high", "range_text"),
    [
        ("sample", 0, 2**31, f"0 to {2**31}"),
        ("seed", 0, 2**31 - 1, r"0 to 2\^31 - 1"),
        ("crop_margin", 0, 10, "0 to 10"),
        ("max_pixels", 1, 178_956_970, "1 to 178956970"),
        ("hash_distance", 0, 32, "0 to 32"),
        ("colour_distance", 0, 255, "0 to 255"),
        ("min_side", 1, 8192, "1 to 8192"),
        ("min_images", 1, 1000, "1 to 1000"),
        ("min_val_items", 0, 1_000_000, "0 to 1000000"),
        ("sheet_items", 0, 20, "0 to 20"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(name, low, high, range_text):
    for value in (low - 1, high + 1):
        with pytest.raises(UserError, match=f"{name} is {value}; expected .*{range_text}"):
            InspectConfig("manifest.csv", **{name: value})


def test_the_error_for_a_wrong_manifest_names_its_row(tmp_path):
    manifest = write_manifest(tmp_path / "m.csv", [("a.png", "1", "tops", "training", "both")])
    with pytest.raises(UserError, match=r"row 2: column 'split': 'training'"):
        inspect(InspectConfig(manifest))


def test_placeholders_are_found_in_every_column_of_names(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "image,item_id,vertical,split,style,x_min,y_min,x_max,y_max\n"
        "a.png,nan,tops,train,s,,,,\nb.png,nan,tops,train,NULL,,,,\nc.png,7,none,train,s,,,,\n"
        "d.png,,tops,unlabelled,None,,,,\n"
    )
    found = inspect(InspectConfig(manifest, images=False))
    findings = [one for one in found.findings if one.code == "placeholder_names"]
    assert [(one.severity, one.count, one.details) for one in findings] == [
        ("warning", 2, ["'nan' in 2 rows"]),
        ("warning", 1, ["'none' in 1 row"]),
        ("note", 2, ["'NULL' in 1 row", "'None' in 1 row"]),
    ]
