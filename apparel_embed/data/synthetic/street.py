"""Street scenes: several garments of different verticals in one image, each with its box."""

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

# Of every garment so much of the area is seen, at least.
LEAST_VISIBLE = 0.6

_MOST_GARMENTS = 5

# Longer side of a garment as cut, and where its middle may be, relative to the scene's side.
_EXTENT = (0.26, 0.5)
_MIDDLE = (0.15, 0.85)

# Every garment hangs in a frame of its own, as in an image of one garment; this much of the frame
# its longer side takes. The rest is for turning and bending it.
_SIZE = 0.78
_FILLED = 0.92 * _SIZE

# The light and the sensor are those of images of one garment. The blur is relative to the frame,
# and garments take about half of a scene's.
_HOW = CONDITIONS[QUERY]._replace(size=(_SIZE, _SIZE), shift=0.0, blur=CONDITIONS[QUERY].blur / 2)

# Things out of focus in the background, and how large they are beside those of an image of one
# garment; and sharp ones before and behind garments, with their radii relative to the scene's side.
_CLUTTER = (8, 16)
_SCALE = 0.5
_THINGS = (2, 7)
_RADIUS = (0.03, 0.1)

# How many places a garment or thing is tried at before it is left out.
_TRIES = 20


@dataclass(frozen=True)
class Scene:
    """What one scene is to show.

    Attributes:
      name: of its image, relative to the manifest.
      number: among the scenes of its split.
      split: of the items.
      items: of different verticals, at least one.
    """

    name: str
    number: int
    split: str
    items: tuple[Item, ...]


class Garment(NamedTuple):
    """A garment in its place.

    Attributes:
      item: whose it is.
      look: what it looks like.
      cut: the garment in its own frame, oversampled.
      corner: left and top of that frame in the scene, in pixels of the scene.
    """

    item: Item
    look: Look
    cut: Cut
    corner: tuple[int, int]


class Thing(NamedTuple):
    """Something that is no garment: its corners relative to the scene's side, and its colour."""

    corners: list[tuple[float, float]]
    colour: tuple[int, ...]


class Layout(NamedTuple):
    """A scene before it is painted.

    Attributes:
      layers: garments and things, painted in this order.
      boxes: of the garments, in their order: x_min, y_min, x_max, y_max in pixels of what is seen
        of them.
      visible: of the garments, in their order: the share of their area that is seen.
    """

    layers: list[Garment | Thing]
    boxes: list[tuple[int, int, int, int]]
    visible: list[float]

    @property
    def garments(self) -> list[Garment]:
        """The garments, in the order in which they are painted."""
        return [layer for layer in self.layers if isinstance(layer, Garment)]


def scenes_of(config: SyntheticConfig, items: Sequence[Item]) -> list[Scene]:
    """Returns what the scenes show: all items of a split about equally often.

    Args:
      config: of the dataset.
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
            # Those shown least come first, those shown as often in any order.
            chosen = np.lexsort((rng.random(len(groups)), shown))[:garments]
            shown[chosen] += 1
            shows = tuple(next(groups[group]) for group in chosen)
            name = f"images/scenes/scene-{len(scenes):06d}.jpg"
            scenes.append(Scene(name, number, split, shows))
    return scenes


def _in_turn(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    """Yields the items for ever, in rounds of any order."""
    while True:
        yield from (items[place] for place in rng.permutation(len(items)))


class _Stack:
    """What is seen of every garment while things are laid upon each other.

    Args:
      side: of the scene in pixels.

    Attributes:
      visible: of every garment the mask of what is seen, of the scene's size.
    """

    def __init__(self, side: int) -> None:
        self._side = side
        self._areas: list[float] = []
        self.visible: list[Image.Image] = []

    @property
    def shares(self) -> list[float]:
        """The part of every garment's area that is seen."""
        return [_area(seen) / area for seen, area in zip(self.visible, self._areas)]

    def lay(
        self, cover: Image.Image, corner: tuple[int, int], extent: Image.Image | None = None
    ) -> bool:
        """Lays something on top, unless too little would be seen of a garment.

        Args:
          cover: mask of what nothing is seen through, in pixels of the scene.
          corner: where the mask is in the scene.
          extent: mask of all of it, if it is a garment.

        Returns:
          Whether it was laid.
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
    """Returns where the garments and things of a scene are; nothing is painted.

    A garment that hides too much of others, or is hidden itself, wherever it is tried, is left out.
    The first one never is.
    """
    side = config.scene_size
    rng = stream(config.seed, "scenes", scene.split, scene.number, "layout")
    stack = _Stack(side)
    # None is a thing.
    wanted: list[Item | None] = [*scene.items, *[None] * int(rng.integers(*_THINGS))]
    layers: list[Garment | Thing] = []
    for place in rng.permutation(len(wanted)):
        item = wanted[place]
        layer = _place_garment(stack, item, side, rng) if item else _place_thing(stack, side, rng)
        if layer:
            layers.append(layer)
    return Layout(layers, [_box(visible) for visible in stack.visible], stack.shares)


def _box(visible: Image.Image) -> tuple[int, int, int, int]:
    """Returns x_min, y_min, x_max, y_max of the pixels that a mask covers by a quarter or more."""
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
    # In the middle there is room for the first.
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
    """Returns a scene as JPEG, its layers painted as `lay_out` has placed them."""
    rng = stream(config.seed, "scenes", scene.split, scene.number, "image")
    return take(paint_scene(config.scene_size, layout, rng), _HOW, rng)


def paint_scene(size: int, layout: Layout, rng: np.random.Generator) -> Image.Image:
    """Returns a scene of `size` pixels, oversampled, before it is taken by a camera."""
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
