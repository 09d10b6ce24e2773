"""Files that are not usable images, and the reasons for their rejection."""

import os
import struct
import zlib

import numpy as np
import pytest
from image_kinds import encode
from PIL import Image, features

from apparel_embed.data.images import (
    ImageSettings,
    RejectedImage,
    image_size,
    prepare_image,
)

SETTINGS = ImageSettings(max_side=64, crop_margin=0.0, jpeg_quality=95)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_decompression_bomb_is_rejected_from_its_header_alone():
    header = struct.pack(">IIBBBBB", 12000, 12000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(RejectedImage, match="12000x12000 pixels are more than the 100000000"):
        prepare_image(bomb, SETTINGS)
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(RejectedImage, match="more than 100000000 pixels"):
        prepare_image(bomb, SETTINGS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_truncated_images_are_rejected_with_a_stable_reason(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = encode(Image.fromarray(noise), kind)
    reasons = set()
    for _ in range(2):
        with pytest.raises(RejectedImage) as caught:
            prepare_image(data[: len(data) // 2], SETTINGS)
        reasons.add(str(caught.value))
    (reason,) = reasons
    assert "0x" not in reason and "\n" not in reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"image,item_id\n", "not an image"),
        (b"\xff\xd8\xff", "not an image|truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"\0" * 100, "not an image|truncated"),
    ],
)
def test_files_that_are_not_images_are_rejected(data, reason):
    with pytest.raises(RejectedImage, match=reason):
        prepare_image(data, SETTINGS)


def test_paths_that_are_not_files_are_rejected(tmp_path):
    with pytest.raises(RejectedImage, match="no such file"):
        prepare_image(tmp_path / "none.jpg", SETTINGS)
    with pytest.raises(RejectedImage, match="is a directory"):
        prepare_image(tmp_path, SETTINGS)
    with pytest.raises(RejectedImage, match="cannot be opened"):
        prepare_image("nul\0byte.jpg", SETTINGS)
    with pytest.raises(RejectedImage, match="cannot be opened"):
        prepare_image("x" * 5000, SETTINGS)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(RejectedImage, match="empty file"):
        prepare_image(empty, SETTINGS)

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(RejectedImage, match="is not a regular file"):
        prepare_image(tmp_path / "pipe.jpg", SETTINGS)


def test_only_the_head_of_a_file_is_needed_for_its_size():
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    for kind in ("JPEG", "PNG"):
        data = encode(Image.fromarray(noise), kind)
        assert image_size(data[: len(data) // 2]) == (80, 60)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty file"), (b"no image", "not an image")])
def test_files_that_are_not_images_have_no_size(data, reason):
    with pytest.raises(RejectedImage, match=reason):
        image_size(data)
