import io

import numpy as np
import pytest
from inspected import pattern
from PIL import Image

from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.examine import OPENED_SIDE, Asked, look_at, look_at_all
from apparel_embed.data.inspection.near import count_bits
from apparel_embed.data.pictures import PictureSettings, RejectedPicture

SETTINGS = PictureSettings(max_side=OPENED_SIDE)
DEFAULT = InspectConfig("manifest.csv")


def seen(directory, name, box=None, thumbnail=False):
    return look_at(Asked(name, box, thumbnail), directory, SETTINGS)


def distances(one, other):
    bits = count_bits((one.outlines ^ other.outlines)[np.newaxis])[0]
    return int(bits), int(np.abs(one.colours.astype(int) - other.colours).max())


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
def test_a_picture_saved_anew_or_smaller_is_within_the_default_distances(folder, name):
    image, options = COPIES[name](Image.open(folder / "original.png"))
    image.save(folder / name, **options)
    bits, levels = distances(seen(folder, "original.png"), seen(folder, name))
    assert bits <= DEFAULT.hash_distance
    assert levels <= DEFAULT.colour_distance


def test_another_colour_keeps_outlines_and_another_picture_does_not(folder):
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


def test_the_content_is_the_same_for_the_same_file_and_crop_alone(folder):
    (folder / "copy.png").write_bytes((folder / "original.png").read_bytes())
    whole = seen(folder, "original.png")
    assert seen(folder, "copy.png").content == whole.content
    box = (50.0, 50.0, 150.0, 250.0)
    cropped = seen(folder, "original.png", box)
    assert cropped.content == seen(folder, "copy.png", box).content != whole.content


def test_a_box_is_looked_at_as_prepare_crops_it(folder):
    found = seen(folder, "original.png", (50.0, 50.0, 150.0, 250.0))
    assert (found.size, found.crop_size) == ((300, 400), (120, 240))
    image = Image.open(folder / "original.png").crop((40, 30, 160, 270))
    image.save(folder / "cut.png")
    assert distances(found, seen(folder, "cut.png")) <= (4, 2)


def test_how_far_a_box_reaches_beyond_the_picture_is_told(folder):
    assert seen(folder, "original.png").overhang == 0
    assert seen(folder, "original.png", (-3.5, 0.0, 200.0, 407.0)).overhang == 7
    assert seen(folder, "original.png", (-9.0, 0.0, 200.0, 407.0)).overhang == 9
    with pytest.raises(RejectedPicture, match="outside the picture of 300x400"):
        seen(folder, "original.png", (300.0, 0.0, 400.0, 100.0))


def test_the_contrast_of_a_blank_picture_is_low_and_of_a_thin_thread_is_not(folder):
    Image.new("RGB", (300, 300), "white").save(folder / "blank.jpg")
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[:, 150:152] = 0
    Image.fromarray(pixels).save(folder / "thread.jpg")
    assert seen(folder, "blank.jpg").contrast < 3
    assert seen(folder, "thread.jpg").contrast > 6


def test_a_thumbnail_is_made_only_where_it_is_wanted(folder):
    assert seen(folder, "original.png").thumbnail == b""
    thumbnail = Image.open(io.BytesIO(seen(folder, "original.png", thumbnail=True).thumbnail))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (72, 96))


def test_many_are_told_in_order_with_the_reason_of_those_that_cannot_be_used(tmp_path):
    pattern(0).save(tmp_path / "Grüße 1.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "Grüße 1.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    names = ["missing.jpg", "Grüße 1.png", "truncated.png", "text.jpg", "http://shop/a.jpg"]
    asked = [Asked(name, None) for name in names] * 4
    found = list(look_at_all(iter(asked), len(asked), tmp_path, SETTINGS, processes=1))
    assert len(found) == 20
    assert found[0] == "no such file"
    assert found[1].format == "PNG"
    assert found[2].startswith("truncated or damaged")
    assert found[3] == "not a picture, or of an unknown format"
    assert found[4].startswith("http:// is not supported")
    assert [isinstance(one, str) for one in found] == [True, False, True, True, True] * 4
