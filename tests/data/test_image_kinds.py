"""Preparation of image files that decoders disagree about."""

import io

import numpy as np
import pytest
from image_kinds import KINDS, SIZE
from PIL import Image

from apparel_embed.data.images import ImageSettings, image_size, prepare_image


@pytest.mark.parametrize("name", KINDS)
def test_an_image_is_prepared_upright_with_its_colours_on_white(name):
    data, colours, _ = KINDS[name]
    image = prepare_image(data, ImageSettings(max_side=80, jpeg_quality=98))

    assert (image.width, image.height) == image_size(data) == SIZE
    pixels = np.asarray(Image.open(io.BytesIO(image.jpeg))).astype(int)
    quarters = [pixels[y, x] for y in (15, 45) for x in (20, 60)]
    # WebP and JPEG change colours a little; the swapped profile's green is not exactly RED.
    tolerance = 60 if "profile" in name else 12
    assert np.abs(np.array(quarters) - colours).max() <= tolerance, quarters
