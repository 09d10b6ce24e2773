import io

import numpy as np
import pytest
from inspected import HEADER, pattern, table_of
from PIL import Image

from apparel_embed.data.images import ImageSettings, RejectedImage
from apparel_embed.data.inspection import examine
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.examine import (
    OPENED_SIDE,
    batch_requests,
    distinct_images,
    look_at,
    make_thumbnail,
    open_all,
)
from apparel_embed.data.inspection.near import count_bits

SETTINGS = ImageSettings(max_side=OPENED_SIDE)
DEFAULT = InspectConfig("manifest.csv")


BOXED = (*HEADER, "x_min", "y_min", "x_max", "y_max")


def seen(directory, name, box=None):
    return look_at((name, box), directory, SETTINGS)


def distances(one, other):
    bits = count_bits((one["outlines"] ^ other["outlines"])[np.newaxis])[0]
    return int(bits), int(np.abs(one["colours"].astype(int) - other["colours"]).max())


@pytest.fixture
def folder(tmp_path):
    pattern(0, (300, 400)).save(tmp_path / "original.png")
    return tmp_path


COPIES = {
    "low_quality.jpg": lambda image: (image, {"quality": 50}),
    "other_format.webp": lambda image: (image, {"quality": 60}),
    "third.jpg": lambda image: (image.resize((100, 133)), {"quality": 80}),
    "lossless.png": lambda image: (image, {}),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_recompressed_or_smaller_copy_is_within_the_default_distances(folder, name):
    image, options = COPIES[name](Image.open(folder / "original.png"))
    image.save(folder / name, **options)
    bits, levels = distances(seen(folder, "original.png"), seen(folder, name))
    assert bits <= DEFAULT.hash_distance
    assert levels <= DEFAULT.colour_distance


def test_a_recoloured_image_keeps_its_outlines_and_another_image_does_not(folder):
    image = Image.open(folder / "original.png")
    grey = np.asarray(image.convert("L")).astype(float)
    Image.fromarray(np.stack([grey, grey * 0.8, grey * 0.8], -1).astype(np.uint8)).save(
        folder / "red.png"
    )
    Image.fromarray(np.stack([grey * 0.8, grey * 0.8, grey], -1).astype(np.uint8)).save(
        folder / "blue.png"
    )
    pattern(1, (300, 400)).save(folder / "other.png")
    bits, levels = distances(seen(folder, "red.png"), seen(folder, "blue.png"))
    assert bits <= DEFAULT.hash_distance
    assert levels > DEFAULT.colour_distance
    bits, _ = distances(seen(folder, "original.png"), seen(folder, "other.png"))
    assert bits > 2 * DEFAULT.hash_distance


def test_the_content_is_equal_only_for_the_same_file_and_crop(folder):
    (folder / "copy.png").write_bytes((folder / "original.png").read_bytes())
    whole = seen(folder, "original.png")
    assert (seen(folder, "copy.png")["content"] == whole["content"]).all()
    box = (50.0, 50.0, 150.0, 250.0)
    cropped = seen(folder, "original.png", box)
    assert (seen(folder, "copy.png", box)["content"] == cropped["content"]).all()
    assert (cropped["content"] != whole["content"]).any()


def test_boxes_are_cropped_as_in_prepare(folder):
    found = seen(folder, "original.png", (50.0, 50.0, 150.0, 250.0))
    assert (found["size"].tolist(), found["crop_size"].tolist()) == ([300, 400], [120, 240])
    image = Image.open(folder / "original.png").crop((40, 30, 160, 270))
    image.save(folder / "cut.png")
    assert distances(found, seen(folder, "cut.png")) <= (4, 2)


def test_the_overhang_of_a_box_is_measured(folder):
    assert seen(folder, "original.png")["overhang"] == 0
    assert seen(folder, "original.png", (-3.5, 0.0, 200.0, 407.0))["overhang"] == 7
    assert seen(folder, "original.png", (-9.0, 0.0, 200.0, 407.0))["overhang"] == 9
    with pytest.raises(RejectedImage, match="outside the image of 300x400"):
        seen(folder, "original.png", (300.0, 0.0, 400.0, 100.0))


def test_contrast_separates_a_blank_image_from_a_thin_thread(folder):
    Image.new("RGB", (300, 300), "white").save(folder / "blank.jpg")
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[:, 150:152] = 0
    Image.fromarray(pixels).save(folder / "thread.jpg")
    assert seen(folder, "blank.jpg")["contrast"] < 3
    assert seen(folder, "thread.jpg")["contrast"] > 6


def test_a_thumbnail_is_a_small_jpeg(folder):
    small = make_thumbnail(("original.png", None), folder, SETTINGS)
    thumbnail = Image.open(io.BytesIO(small))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (72, 96))


def test_results_are_in_order_with_reasons_for_unusable_images(tmp_path):
    pattern(0).save(tmp_path / "Grüße 1.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "Grüße 1.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no image")
    names = ["missing.jpg", "Grüße 1.png", "truncated.png", "text.jpg", "http_/a.jpg"]
    table = table_of(tmp_path, [(name, "a", "tops", "train", "both") for name in names * 4])
    config = InspectConfig(tmp_path / "manifest.csv")
    found = list(open_all(look_at, table, np.arange(20), config, processes=1))
    assert len(found) == 20
    assert found[0] == "no such file"
    assert found[1]["format"] == b"PNG"
    assert found[2].startswith("truncated or damaged")
    assert found[3] == "not an image, or of an unknown format"
    assert [isinstance(one, str) for one in found] == [True, False, True, True, True] * 4
    small = list(open_all(make_thumbnail, table, np.array([1, 2]), config, 1, threads=True))
    assert (small[0][:2], small[1]) == (b"\xff\xd8", found[2])


def test_rows_with_the_same_file_and_box_are_one_image(tmp_path):
    label = ("a", "tops", "train", "both")
    box, other = ("0", "0", "10", "20"), ("0", "0", "10.5", "20")
    none = ("",) * 4
    rows = [
        ("x.jpg", *label, *box),
        ("y.jpg", *label, *none),
        ("x.jpg", *label, *other),
        ("x.jpg", *label, *none),
        ("x.jpg", *label, *box),
        ("y.jpg", *label, *none),
        ("x.jpg", *label, *none),
    ]
    first = distinct_images(table_of(tmp_path, rows, BOXED))
    assert first.tolist() == [0, 1, 2, 3, 0, 1, 3]


def test_rows_with_the_same_file_and_no_boxes_are_one_image(tmp_path):
    label = ("a", "tops", "train", "both")
    rows = [(f"{name}.jpg", *label) for name in "abcab"]
    first = distinct_images(table_of(tmp_path, rows))
    assert first.tolist() == [0, 1, 2, 0, 1]


def test_requests_contain_the_box(tmp_path):
    label = ("a", "tops", "train", "both")
    rows = [("x.jpg", *label, "0", "1", "10", "20"), ("y.jpg", *label, "", "", "", "")]
    table = table_of(tmp_path, rows, BOXED)
    (requests,) = batch_requests(table, np.array([0, 1]))
    assert [image for image, _ in requests] == ["x.jpg", "y.jpg"]
    assert [box for _, box in requests] == [(0.0, 1.0, 10.0, 20.0), None]


def test_images_are_requested_in_order_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(examine, "_IMAGES_PER_TASK", 2)
    table = table_of(tmp_path, [(f"{n}.jpg", "a", "tops", "train", "both") for n in range(9)])
    requests = [
        [image for image, _ in some] for some in batch_requests(table, np.array([1, 2, 4, 7, 8]))
    ]
    assert requests == [["1.jpg", "2.jpg"], ["4.jpg", "7.jpg"], ["8.jpg"]]
    assert list(batch_requests(table, np.array([], np.int64))) == []
