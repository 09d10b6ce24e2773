"""Street scenes: several garments of different verticals in one image, each with a box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from apparel_embed.data.synthetic.scene import (
    CONDITIONS,
    OVERSAMPLING,
    QUERY,
    Cut,
    Look,
    any_colour,
    blob,
    cut_out,
    look_of,
    sew_on,
    street,
    take,
    weave,
)
from apparel_embed.data.synthetic.world import Item, SyntheticConfig, stream

# Minimum visible fraction of the area of each garment.
LEAST_VISIBLE = 0.6

_MOST_GARMENTS = 5

# Ranges of a garment's longer side and of its centre, relative to the scene's side.
_EXTENT = (0.26, 0.5)
_MIDDLE = (0.15, 0.85)

# Each garment has its own frame, as in an image of a single garment. _FILLED is the fraction of the
# frame that its longer side takes; the rest is room to rotate and bend it.
_SIZE = 0.78
_FILLED = 0.92 * _SIZE

# Light and sensor as for images of single garments. The blur is relative to the frame, and a
# garment takes about half of a scene's side, so it is halved.
_HOW = CONDITIONS[QUERY]._replace(size=(_SIZE, _SIZE), shift=0.0, blur=CONDITIONS[QUERY].blur / 2)

# Number of blurred things in the background, and their size relative to those in images of single
# garments; number of sharp things among the garments, and their radii relative to the scene's side.
_CLUTTER = (8, 16)
_SCALE = 0.5
_THINGS = (2, 7)
_RADIUS = (0.03, 0.1)

# Number of places tried for a garment or thing before it is left out.
_TRIES = 20


@dataclass(frozen=True)
class Scene:
    """The planned content of a scene.

    Attributes:
      name: path of its image, relative to the manifest.
      number: index among the scenes of its split.
      split: the split of the items.
      items: items of different verticals, at least one.
    """

    name: str
    number: int
    split: str
    items: tuple[Item, ...]


class Garment(NamedTuple):
    """A garment in its place.

    Attributes:
      item: the item.
      look: its appearance.
      cut: the garment in its own frame, oversampled.
      corner: left and top of that frame in the scene, in pixels of the scene.
    """

    item: Item
    look: Look
    cut: Cut
    corner: tuple[int, int]


class Thing(NamedTuple):
    """Something other than a garment: corners relative to the scene's side, and colour."""

    corners: list[tuple[float, float]]
    colour: tuple[int, ...]


class Layout(NamedTuple):
    """A scene before it is painted.

    Attributes:
      layers: garments and things, painted in this order.
      boxes: x_min, y_min, x_max, y_max in pixels of the visible part of each garment, in order.
      visible: the visible fraction of each garment's area, in the same order.
    """

    layers: list[Garment | Thing]
    boxes: list[tuple[int, int, int, int]]
    visible: list[float]

    @property
    def garments(self) -> list[Garment]:
        """The garments, in the order in which they are painted."""
        return [layer for layer in self.layers if isinstance(layer, Garment)]


def scenes_of(config: SyntheticConfig, items: Sequence[Item]) -> list[Scene]:
    """Returns the scenes, which show the verticals of a split, and a vertical's items, evenly.

    Args:
      config: the dataset's settings.
      items: all items of the dataset.
    """
    scenes: list[Scene] = []
    for split, count in config.scenes_of_splits.items():
        rng = stream(config.seed, "scenes", split)
        groups = [
            _in_turn([i for i in items if (i.vertical, i.split) == (vertical, split)], rng)
            for vertical in config.verticals
        ]
        shown = np.zeros(len(groups), int)
        for number in range(count):
            garments = int(rng.integers(1, min(_MOST_GARMENTS, len(groups)) + 1))
            # The verticals shown least come first, ties in random order.
            chosen = np.lexsort((rng.random(len(groups)), shown))[:garments]
            shown[chosen] += 1
            shows = tuple(next(groups[group]) for group in chosen)
            name = f"images/scenes/scene-{len(scenes):06d}.jpg"
            scenes.append(Scene(name, number, split, shows))
    return scenes


def _in_turn(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    """Yields the items endlessly, in rounds of random order."""
    while True:
        yield from (items[place] for place in rng.permutation(len(items)))


class _Stack:
    """The visible parts of garments while layers are added on top of each other.

    Args:
      side: side of the scene in pixels.

    Attributes:
      visible: the mask of each garment's visible part, of the scene's size.
    """

    def __init__(self, side: int) -> None:
        self._side = side
        self._areas: list[float] = []
        self.visible: list[Image.Image] = []

    @property
    def shares(self) -> list[float]:
        """The visible fraction of each garment's area."""
        return [_area(seen) / area for seen, area in zip(self.visible, self._areas)]

    def lay(
        self, cover: Image.Image, corner: tuple[int, int], extent: Image.Image | None = None
    ) -> bool:
        """Adds a layer on top, unless too little of a garment would remain visible.

        Args:
          cover: mask of the layer's opaque part, in pixels of the scene.
          corner: left and top of the mask in the scene.
          extent: mask of the whole layer if it is a garment, otherwise None.

        Returns:
          Whether the layer was added.
        """
        before = self._areas, self.visible
        left = ImageChops.invert(self._in_scene(cover, corner))
        self.visible = [ImageChops.multiply(seen, left) for seen in self.visible]
        if extent is not None:
            self.visible = [*self.visible, self._in_scene(extent, corner)]
            self._areas = [*self._areas, _area(extent)]
        if min(self.shares, default=1.0) >= LEAST_VISIBLE:
            return True
        self._areas, self.visible = before
        return False

    def _in_scene(self, mask: Image.Image, corner: tuple[int, int]) -> Image.Image:
        scene = Image.new("L", (self._side, self._side), 0)
        scene.paste(mask, corner)
        return scene


def _area(mask: Image.Image) -> float:
    return float(np.asarray(mask).sum())


def lay_out(config: SyntheticConfig, scene: Scene) -> Layout:
    """Returns the places of the garments and things of a scene, without painting them.

    A garment is left out if, at every place tried, it hides too much of others or too little of it
    is in the scene. The first garment is always kept.
    """
    side = config.scene_size
    rng = stream(config.seed, "scenes", scene.split, scene.number, "layout")
    stack = _Stack(side)
    # None stands for a thing.
    wanted: list[Item | None] = [*scene.items, *[None] * int(rng.integers(*_THINGS))]
    layers: list[Garment | Thing] = []
    for place in rng.permutation(len(wanted)):
        item = wanted[place]
        layer = _place_garment(stack, item, side, rng) if item else _place_thing(stack, side, rng)
        if layer:
            layers.append(layer)
    return Layout(layers, [_box(visible) for visible in stack.visible], stack.shares)


def _box(visible: Image.Image) -> tuple[int, int, int, int]:
    """Returns x_min, y_min, x_max, y_max of the pixels that a mask covers by at least a quarter."""
    seen = np.asarray(visible) >= 64
    columns, rows = (np.flatnonzero(seen.any(axis=axis)) for axis in (0, 1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _place_garment(
    stack: _Stack, item: Item, side: int, rng: np.random.Generator
) -> Garment | None:
    frame = round(side * rng.uniform(*_EXTENT) / _FILLED)
    look = look_of(item, rng)
    cut = cut_out(item.vertical, look, _HOW, frame * OVERSAMPLING, rng)
    cover = ImageChops.lighter(ImageChops.lighter(cut.masks["body"], cut.masks["trim"]), cut.seams)
    extent = ImageChops.lighter(cover, cut.masks["glass"]).reduce(OVERSAMPLING)
    cover = cover.reduce(OVERSAMPLING)
    # The centre always has room for the first garment.
    for middle in [*rng.uniform(*_MIDDLE, (_TRIES, 2)), np.array([0.5, 0.5])]:
        left, top = (round(float(m) * side - frame / 2) for m in middle)
        if stack.lay(cover, (left, top), extent):
            return Garment(item, look, cut, (left, top))
    return None


def _place_thing(stack: _Stack, side: int, rng: np.random.Generator) -> Thing | None:
    for _ in range(_TRIES):
        corners = blob(rng, rng.random(2), rng.uniform(*_RADIUS), 1)
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).polygon([(x * side, y * side) for x, y in corners], fill=255)
        if stack.lay(mask, (0, 0)):
            return Thing(corners, any_colour(rng))
    return None


def scene_image(config: SyntheticConfig, scene: Scene, layout: Layout) -> bytes:
    """Returns a scene as JPEG, its layers painted where `lay_out` placed them."""
    rng = stream(config.seed, "scenes", scene.split, scene.number, "image")
    return take(paint_scene(config.scene_size, layout, rng), _HOW, rng)


def paint_scene(size: int, layout: Layout, rng: np.random.Generator) -> Image.Image:
    """Returns a scene of `size` pixels, oversampled, without camera effects."""
    side = size * OVERSAMPLING
    image = street(rng, side, _CLUTTER, _SCALE)
    for layer in layout.layers:
        if isinstance(layer, Garment):
            left, top = layer.corner
            cloth = weave(layer.look, layer.cut, rng)
            corner = (left * OVERSAMPLING, top * OVERSAMPLING)
            sew_on(image, layer.cut, cloth, any_colour(rng), corner)
        else:
            corners = [(x * side, y * side) for x, y in layer.corners]
            ImageDraw.Draw(image).polygon(corners, fill=layer.colour)
    return image
