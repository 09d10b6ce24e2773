"""Street scenes: their items, their layout, and how tightly boxes fit."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from apparel_embed.data.synthetic.scene import OVERSAMPLING
from apparel_embed.data.synthetic.street import (
    LEAST_VISIBLE,
    Layout,
    lay_out,
    paint_scene,
    scene_image,
    scenes_of,
)
from apparel_embed.data.synthetic.world import CUES, SyntheticConfig, items_of, stream

CONFIG = SyntheticConfig(train_items=4, val_items=1, test_items=2, scenes=24, scene_size=160)
ITEMS = [item for vertical in CUES for item in items_of(CONFIG, vertical)]
SCENES = scenes_of(CONFIG, ITEMS)


@pytest.fixture(scope="module")
def layouts():
    return [lay_out(CONFIG, scene) for scene in SCENES]


def test_scenes_show_items_of_their_split_in_different_verticals():
    assert [scene.split for scene in SCENES] == ["train"] * 24 + ["val"] * 6 + ["test"] * 6
    assert [scene.name for scene in SCENES[:2]] == [
        "images/scenes/scene-000000.jpg",
        "images/scenes/scene-000001.jpg",
    ]
    assert len({scene.name for scene in SCENES}) == len(SCENES)
    for scene in SCENES:
        assert {item.split for item in scene.items} == {scene.split}
        assert len({item.vertical for item in scene.items}) == len(scene.items)
    assert {len(scene.items) for scene in SCENES} == {1, 2, 3, 4, 5}


def test_all_items_of_a_split_are_shown_about_equally_often():
    for split, least in (("train", 1), ("val", 1), ("test", 0)):
        shown = {item.item_id: 0 for item in ITEMS if item.split == split}
        for scene in SCENES:
            for item in scene.items if scene.split == split else ():
                shown[item.item_id] += 1
        assert min(shown.values()) >= least
        assert max(shown.values()) - min(shown.values()) <= 1


def test_few_verticals_or_scenes_are_enough():
    few = dataclasses.replace(CONFIG, verticals=("bag", "top"), scenes=1, val_items=0)
    scenes = scenes_of(few, [item for item in ITEMS if item.vertical in few.verticals])
    assert few.scenes_of_splits == {"train": 1, "test": 1}
    assert [scene.split for scene in scenes] == ["train", "test"]
    assert all(1 <= len(scene.items) <= 2 for scene in scenes)
    assert dataclasses.replace(CONFIG, scenes=0).scenes_of_splits == {}


def test_garments_are_within_the_frame_and_sufficiently_visible(layouts):
    extents = []
    for scene, layout in zip(SCENES, layouts):
        assert 1 <= len(layout.boxes) <= len(scene.items)
        assert {garment.item.item_id for garment in layout.garments} <= {
            item.item_id for item in scene.items
        }
        for left, top, right, bottom in layout.boxes:
            assert 0 <= left < right <= 160
            assert 0 <= top < bottom <= 160
            extents.append(max(right - left, bottom - top) / 160)
        assert min(layout.visible) >= LEAST_VISIBLE
    assert min(extents) > 0.05
    assert 0.2 < np.median(extents) < 0.5
    assert max(extents) < 0.7
    shares = np.concatenate([layout.visible for layout in layouts])
    # Some garments are partly hidden, but most are not.
    assert shares.min() < 0.8
    assert np.median(shares) > 0.8
    assert len(shares) >= 0.97 * sum(len(scene.items) for scene in SCENES)


def _painted(layout: Layout) -> np.ndarray:
    image = paint_scene(CONFIG.scene_size, layout, stream(0, "paint"))
    return np.asarray(image.reduce(OVERSAMPLING), np.float64)


def _without(layout: Layout, place: int) -> Layout:
    """Returns the layout with the garment at `place` made invisible."""
    gone = layout.garments[place]
    nothing = gone.cut.seams.point(lambda _: 0)
    cut = gone.cut._replace(masks=dict.fromkeys(gone.cut.masks, nothing), seams=nothing)
    layers = [gone._replace(cut=cut) if layer is gone else layer for layer in layout.layers]
    return layout._replace(layers=layers)


def test_boxes_fit_the_visible_part_of_a_garment_tightly(layouts):
    gaps = []
    for layout in layouts[:12]:
        whole = _painted(layout)
        for place, box in enumerate(layout.boxes):
            changed = np.abs(whole - _painted(_without(layout, place))).max(axis=-1) > 8
            columns, rows = (np.flatnonzero(changed.any(axis=axis)) for axis in (0, 1))
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            gaps.append(np.abs(np.array(seen) - box))
    assert len(gaps) > 20
    # The difference can miss a sliver that covers less than a quarter of a pixel.
    assert np.mean(np.array(gaps) <= 1) >= 0.98
    assert np.max(gaps) <= 3


def test_a_scene_is_a_jpeg_of_the_requested_size_determined_by_its_settings(layouts):
    content = scene_image(CONFIG, SCENES[0], layouts[0])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (160, 160))
    again = lay_out(CONFIG, SCENES[0])
    assert again.boxes == layouts[0].boxes
    assert scene_image(CONFIG, SCENES[0], again) == content
    other = dataclasses.replace(CONFIG, seed=1)
    assert lay_out(other, SCENES[0]).boxes != layouts[0].boxes
    # With more scenes, the first ones stay the same.
    more = dataclasses.replace(CONFIG, scenes=30)
    assert scenes_of(more, ITEMS)[:24] == SCENES[:24]
