"""Images of items: what they share, how they differ, and their file format."""

import io

import numpy as np
import pytest
from PIL import Image

from apparel_embed.data.synthetic.prints import FAMILIES, PRINT_NAMES, paint, surface
from apparel_embed.data.synthetic.scene import GALLERY, QUERY, draw_image, look_of
from apparel_embed.data.synthetic.world import CUES, OUTLINE, SyntheticConfig, items_of, stream

CONFIG = SyntheticConfig(train_items=3, val_items=0, test_items=0)


def _looks(vertical: str) -> list:
    item = items_of(CONFIG, vertical)[0]
    return [look_of(item, stream(0, vertical, number)) for number in range(6)]


@pytest.mark.parametrize("vertical", [name for name, cue in CUES.items() if cue == OUTLINE])
def test_images_of_an_outline_vertical_share_the_cut_and_differ_in_colour(vertical):
    looks = _looks(vertical)
    cuts = np.stack([look.outline for look in looks])
    assert np.ptp(cuts, axis=0).max() <= 0.04 + 1e-9
    palettes = {surface(look.print).palette.tobytes() for look in looks}
    assert len(palettes) == len(looks)


@pytest.mark.parametrize("vertical", [name for name, cue in CUES.items() if cue != OUTLINE])
def test_images_of_a_print_vertical_share_print_and_palette_and_differ_in_cut(vertical):
    looks = _looks(vertical)
    seen = [surface(look.print) for look in looks]
    assert {one.family for one in seen} == {seen[0].family}
    assert len({one.palette.tobytes() for one in seen}) == 1
    cuts = np.stack([look.outline for look in looks])
    gaps = np.abs(cuts[:, None] - cuts[None]).max(axis=-1)
    assert gaps[np.triu_indices(len(cuts), 1)].min() > 0.2


@pytest.mark.parametrize("vertical", CUES)
@pytest.mark.parametrize("role", [GALLERY, QUERY])
def test_an_image_is_a_jpeg_of_the_requested_size_determined_by_its_key(vertical, role):
    item = items_of(CONFIG, vertical)[0]
    content = draw_image(0, item, role, 1, 48)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 48))
    assert draw_image(0, item, role, 1, 48) == content
    assert draw_image(0, item, role, 2, 48) != content
    assert draw_image(1, item, role, 1, 48) != content


def test_shop_images_have_a_plain_border_and_street_images_do_not():
    def rim_deviation(role: str) -> float:
        values = []
        for item in items_of(CONFIG, "bag"):
            pixels = np.asarray(
                Image.open(io.BytesIO(draw_image(0, item, role, 0, 64))), np.float64
            )
            rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
            values.append(rim.std(axis=0).mean())
        return float(np.mean(values))

    assert rim_deviation(GALLERY) < 8 < rim_deviation(QUERY)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_print_paints_its_palette_and_differs_from_the_others(family):
    names = list(FAMILIES)
    vector = np.full(len(PRINT_NAMES), 0.4)
    vector[PRINT_NAMES.index("family")] = (names.index(family) + 0.5) / len(names)
    look = surface(vector)
    assert look.family == family
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 2)).astype(np.float32)
    painted = paint(look, *grid)
    assert painted.shape == (64, 64, 3)
    shades = len(np.unique(painted.reshape(-1, 3), axis=0))
    assert shades == 1 if family == "solid" else shades > 1


def test_ground_and_accent_never_have_the_same_brightness():
    rng = np.random.default_rng(0)
    for vector in rng.random((300, len(PRINT_NAMES))):
        ground, accent, _ = surface(vector).palette.astype(int)
        assert np.abs(ground - accent).sum() > 40
