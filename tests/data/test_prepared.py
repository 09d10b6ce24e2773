import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import PrepareConfig, prepare
from apparel_embed.data.prepared import PreparedDataset


def colour(record):
    return (10 * record, 255 - 10 * record, 128)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A dataset of ten records in three shards: 0-3, 4-7 and 8-9."""
    directory = tmp_path_factory.mktemp("prepared")
    lines = ["image,item_id,vertical,split,role,shop"]
    for i in range(10):
        Image.new("RGB", (12 + i, 20), colour(i)).save(directory / f"{i}.png")
        vertical = "tops" if i < 6 else "bags"
        split = "test" if i % 6 >= 4 else "train"
        role = ("query", "gallery")[i % 2] if split == "test" else ""
        lines.append(f"{i}.png,{i // 2:03d},{vertical},{split},{role},s{i}")
    (directory / "manifest.csv").write_text("\n".join(lines) + "\n")
    prepare(PrepareConfig(directory / "manifest.csv", directory / "out", shard_records=4), 1)
    return directory / "out"


@pytest.fixture
def copy(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "copy")


def test_columns_are_in_record_order(original):
    dataset = PreparedDataset.open(original)
    assert len(dataset) == 10 and dataset.reject_count == 0
    assert dataset.verticals == ("bags", "tops")
    assert dataset.directory == original
    assert len(dataset.fingerprint) == 64
    np.testing.assert_array_equal(dataset.column("record"), np.arange(10))
    assert dataset.column("record").dtype == np.int64
    assert dataset.column("item_id").tolist() == [f"{i // 2:03d}" for i in range(10)]
    assert dataset.column("shop")[3] == "s3"
    assert np.isnan(dataset.column("x_min")).all()
    with pytest.raises(UserError, match="no column 'price'; expected one of record, image"):
        dataset.column("price")


def test_codes_number_the_sorted_texts(original):
    dataset = PreparedDataset.open(original)
    for name in ("vertical", "item_id", "image"):
        codes, texts = dataset.codes(name)
        assert texts.tolist() == sorted(set(dataset.column(name)))
        assert texts[codes].tolist() == dataset.column(name).tolist()
    with pytest.raises(UserError, match="no column 'price'; expected one of record, image"):
        dataset.codes("price")


def test_images_are_read_in_the_requested_order_across_shards_with_repeats(original):
    dataset = PreparedDataset.open(original)
    wanted = [9, 0, 4, 4, 7, 1, 9]
    for record, data in zip(wanted, dataset.read_images(wanted)):
        image = Image.open(io.BytesIO(data))
        assert image.format == "JPEG" and image.size == (12 + record, 20)
        assert np.abs(np.subtract(image.getpixel((5, 5)), colour(record))).max() <= 4
    assert dataset.read_images(np.array([3])) == dataset.read_images([3])
    assert dataset.read_images([]) == []


def test_records_out_of_range_are_an_index_error(original):
    dataset = PreparedDataset.open(original)
    for wrong in ([10], [-1], [0, 99]):
        with pytest.raises(IndexError, match=r"\[0, 10\)"):
            dataset.read_images(wrong)


def test_records_are_selected_by_split_vertical_and_role(original):
    dataset = PreparedDataset.open(original)
    assert dataset.select().tolist() == list(range(10))
    assert dataset.select(split="test").tolist() == [4, 5]
    assert dataset.select(split="train", verticals=["tops"]).tolist() == [0, 1, 2, 3]
    assert dataset.select(verticals=("bags", "tops")).tolist() == list(range(10))
    assert dataset.select(split="test", roles=("query", "both")).tolist() == [4]
    assert dataset.select(split="val").tolist() == []
    assert dataset.select(verticals=[]).tolist() == []
    assert dataset.select().dtype == np.int64


def test_select_refuses_unknown_names(original):
    dataset = PreparedDataset.open(original)
    with pytest.raises(UserError, match="unknown vertical 'shoes'; expected one of bags, tops"):
        dataset.select(verticals=["tops", "shoes"])
    with pytest.raises(UserError, match="unknown split 'dev'; expected one of train, val"):
        dataset.select(split="dev")
    with pytest.raises(UserError, match="unknown role 'index'; expected one of query, gal"):
        dataset.select(roles=["index"])
    with pytest.raises(TypeError, match="expected a sequence of names"):
        dataset.select(verticals="tops")


def test_an_example_has_all_features(original):
    from array_record.python import array_record_module
    from tensorflow.train import Example

    path = str(original / "records-00001-of-00003.array_record")
    serialised = array_record_module.ArrayRecordReader(path).read([1])[0]
    feature = Example.FromString(serialised).features.feature
    assert set(feature) == {
        *("image", "item_id", "vertical", "split", "role"),
        *("record", "height", "width"),
    }
    texts = [feature[n].bytes_list.value[0] for n in ("item_id", "vertical", "split", "role")]
    assert texts == [b"002", b"tops", b"test", b"gallery"]
    numbers = [feature[n].int64_list.value[0] for n in ("record", "height", "width")]
    assert numbers == [5, 20, 17]


def test_missing_unfinished_and_other_directories_are_refused(original, tmp_path):
    with pytest.raises(UserError, match="directory does not exist"):
        PreparedDataset.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"not a prepared dataset: it has no dataset\.json"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        PreparedDataset.open(tmp_path / "file")
    (tmp_path / "half.partial").mkdir()
    for name in ("half", "half.partial"):
        with pytest.raises(UserError, match="still partial; run prepare again"):
            PreparedDataset.open(tmp_path / name)


def test_another_schema_version_and_broken_json_are_refused(copy):
    path = copy / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "schema_version": 99}))
    with pytest.raises(
        UserError,
        match=r"a prepared dataset of format 99, .*reads and writes format 3",
    ):
        PreparedDataset.open(copy)
    del info["shards"]
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"dataset\.json: missing shards"):
        PreparedDataset.open(copy)
    for text in ("{", "[]", "{}", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"not the dataset\.json of a prepared dataset"):
            PreparedDataset.open(copy)


def test_missing_and_truncated_shards_are_found_when_opening(copy):
    path = copy / "records-00001-of-00003.array_record"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"{path}: expected {len(data)} bytes, got \d+"):
        PreparedDataset.open(copy)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path}: missing"):
        PreparedDataset.open(copy)


def test_a_damaged_or_shortened_index_is_refused(copy):
    path = copy / "index.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(UserError, match=r"index\.parquet has 9 records, the shards 10"):
        PreparedDataset.open(copy)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"index\.parquet: cannot be read"):
        PreparedDataset.open(copy)
    path.unlink()
    with pytest.raises(UserError, match=r"index\.parquet: cannot be read"):
        PreparedDataset.open(copy)


def test_the_error_names_a_corrupt_record_and_its_neighbours_stay_readable(copy):
    dataset = PreparedDataset.open(copy)
    (jpeg,) = dataset.read_images([5])
    path = copy / "records-00001-of-00003.array_record"
    data = bytearray(path.read_bytes())
    data[data.index(jpeg) + 30] ^= 255
    path.write_bytes(data)
    dataset = PreparedDataset.open(copy)
    for wanted in ([5], [0, 4, 5, 9]):
        with pytest.raises(UserError, match=rf"{path}: record 5 is damaged \(.*hash mismatch"):
            dataset.read_images(wanted)
    assert len(dataset.read_images([4, 6, 9])) == 3


def test_swapped_shards_are_detected(copy):
    first, second = (copy / f"records-0000{i}-of-00003.array_record" for i in (0, 1))
    if first.stat().st_size != second.stat().st_size:
        pytest.skip("the sizes alone distinguish them")
    spare = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(spare)
    with pytest.raises(UserError, match=r"record 2 is damaged \(it contains record 6"):
        PreparedDataset.open(copy).read_images([2])
