"""Images of single items: shop images (gallery) and street images (query)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from apparel_embed.data.synthetic.prints import PRINT_NAMES, paint, surface
from apparel_embed.data.synthetic.shapes import Part
from apparel_embed.data.synthetic.world import CUES, OUTLINE, OUTLINES, Item, stream

GALLERY, QUERY = "gallery", "query"

# Images are drawn this many times larger and then reduced, which smooths edges.
OVERSAMPLING = 3

# Half width of the variation of an item's identity between its images.
_JITTER = 0.02

# The street behind the garment: range of the number of things (end excluded), blur relative to the
# frame, brightness, and deviation of colour channels from grey. With more contrast, a small network
# trained for a few hundred steps no longer finds the outlines.
_CLUTTER = (3, 8)
_DEFOCUS = (0.04, 0.08)
_STREET_GREY = (155.0, 240.0)
_STREET_TINT = 15.0


@dataclass(frozen=True)
class Look:
    """The appearance of a garment in one image.

    Attributes:
      outline: parameters of the cut, in the order of `OUTLINES[vertical].names`.
      print: parameters of the print, in the order of `PRINT_NAMES`.
    """

    outline: np.ndarray
    print: np.ndarray


class Conditions(NamedTuple):
    """How an image is taken; numbers are half widths of uniform draws unless noted."""

    turn: float  # Radians.
    size: tuple[float, float]  # Minimum and maximum, relative to the frame.
    stretch: float  # Relative difference between width and height.
    shift: float  # Relative to half the frame.
    gain: float  # Brightness, as a power of two.
    cast: float  # Gain per colour channel, as a power of two.
    slant: float  # Change of brightness across the frame.
    noise: float  # Maximum standard deviation, in grey levels.
    blur: float  # Maximum radius, in pixels of a 96-pixel image.
    occluders: int  # Maximum number of things in front.
    quality: tuple[int, int]  # Minimum and maximum JPEG quality.


CONDITIONS = {
    GALLERY: Conditions(0.05, (0.86, 0.96), 0.03, 0.03, 0.06, 0.02, 0.04, 1.0, 0.0, 0, (88, 95)),
    QUERY: Conditions(0.17, (0.76, 0.92), 0.05, 0.09, 0.4, 0.45, 0.2, 8.0, 0.6, 1, (50, 85)),
}


def look_of(item: Item, rng: np.random.Generator) -> Look:
    """Returns a look of `item`: its identity, and the other parameters at random."""
    identity = item.identity + rng.uniform(-_JITTER, _JITTER, len(item.identity))
    outline = rng.random(len(OUTLINES[item.vertical].names))
    pattern = rng.random(len(PRINT_NAMES))
    if CUES[item.vertical] == OUTLINE:
        return Look(np.clip(identity, 0.0, 1.0), pattern)
    return Look(outline, item.identity)


def _bend(parts: list[Part], rng: np.random.Generator, amount: float) -> list[Part]:
    """Returns the parts bent sideways and lengthwise, as by cloth and posture."""
    wave = rng.uniform(0.6, 1.6, 2)
    phase = rng.uniform(0.0, 2 * np.pi, 2)
    height = rng.uniform(-amount, amount, 2)
    bent = []
    for part in parts:
        x, y = part.points.T
        across = x + height[0] * np.sin(wave[0] * np.pi * y + phase[0])
        down = y + height[1] * np.sin(wave[1] * np.pi * x + phase[1])
        bent.append(Part(np.stack([across, down], axis=1), part.fill))
    return bent


def _placement(
    rng: np.random.Generator, how: Conditions, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the map from garment units to pixels of a frame: matrix [2, 2] and offset [2]."""
    turn = rng.uniform(-how.turn, how.turn)
    size = rng.uniform(*how.size)
    stretch = rng.uniform(-how.stretch, how.stretch)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1.0, rng.uniform(-how.stretch, how.stretch)], [0.0, 1.0]])
    matrix = rotation @ shear @ np.diag([size * (1 + stretch), size * (1 - stretch)]) * side / 2
    offset = side / 2 * (1 + rng.uniform(-how.shift, how.shift, 2))
    return matrix, offset


class Cut(NamedTuple):
    """A garment in a square frame, without its cloth.

    Attributes:
      matrix: float [2, 2], from garment units to pixels of the frame.
      offset: float [2], the garment's origin in the frame, in pixels.
      masks: one per fill, of the frame's size.
      seams: mask of the seams.
    """

    matrix: np.ndarray
    offset: np.ndarray
    masks: dict[str, Image.Image]
    seams: Image.Image


def cut_out(vertical: str, look: Look, how: Conditions, side: int, rng: np.random.Generator) -> Cut:
    """Returns a garment placed in a frame of `side` pixels under the conditions `how`."""
    amount = 0.03 if CUES[vertical] == OUTLINE else 0.14
    parts = _bend(OUTLINES[vertical].parts(look.outline), rng, amount)
    matrix, offset = _placement(rng, how, side)
    return Cut(matrix, offset, *_masks(parts, matrix, offset, side))


def _masks(
    parts: list[Part], matrix: np.ndarray, offset: np.ndarray, side: int
) -> tuple[dict[str, Image.Image], Image.Image]:
    """Returns a mask per fill and the mask of the seams, all of size side x side."""
    masks = {fill: Image.new("L", (side, side), 0) for fill in ("body", "trim", "glass")}
    seams = Image.new("L", (side, side), 0)
    pens = {fill: ImageDraw.Draw(mask) for fill, mask in masks.items()}
    seam_pen = ImageDraw.Draw(seams)
    width = max(1, round(side * 0.013))
    for part in parts:
        corners = [tuple(corner) for corner in part.points @ matrix.T + offset]
        cloth = ImageChops.lighter(masks["body"], masks["trim"]) if part.fill == "cut" else None
        for fill, pen in pens.items():
            pen.polygon(corners, fill=255 if fill == part.fill else 0)
        seam_pen.polygon(corners, fill=0)
        seam_pen.line([*corners, corners[0]], fill=255, width=width, joint="curve")
        if cloth is not None:
            seams.paste(0, mask=ImageChops.invert(cloth))
    return masks, seams


def blob(
    rng: np.random.Generator, centre: np.ndarray, radius: float, side: int
) -> list[tuple[float, float]]:
    """Returns the corners of a random shape in pixels: round, boxy or like a star."""
    count = int(rng.integers(3, 12))
    angle = np.linspace(0.0, 2 * np.pi, count, endpoint=False) + rng.uniform(0.0, 2 * np.pi)
    reach = radius * rng.uniform(0.5, 1.2, count)
    stretch = rng.uniform(0.5, 1.5)
    x = (centre[0] + stretch * reach * np.cos(angle)) * side
    y = (centre[1] + reach / stretch * np.sin(angle)) * side
    return list(zip(x.tolist(), y.tolist()))


def _rgb(levels: np.ndarray) -> tuple[int, ...]:
    return tuple(int(level) for level in levels)


def any_colour(rng: np.random.Generator) -> tuple[int, ...]:
    """Returns a random colour for things other than garments."""
    return _rgb(rng.integers(10, 250, 3))


def _muted(rng: np.random.Generator) -> tuple[int, ...]:
    """Returns a random colour of walls and pavements."""
    return _rgb(rng.uniform(*_STREET_GREY) + rng.uniform(-_STREET_TINT, _STREET_TINT, 3))


def _shop(rng: np.random.Generator, side: int) -> Image.Image:
    grey = rng.integers(225, 253) + rng.integers(-4, 4, 3)
    return Image.new("RGB", (side, side), _rgb(np.minimum(grey, 255)))


def street(
    rng: np.random.Generator,
    side: int,
    clutter: tuple[int, int] = _CLUTTER,
    scale: float = 1.0,
) -> Image.Image:
    """Returns an image of a wall, a floor and things, out of focus.

    Args:
      rng: the random stream.
      side: side of the image in pixels.
      clutter: range of the number of things, the end excluded.
      scale: size of the things and of their blur; 1 if one garment fills the frame.
    """
    # Drawn small, since a blurred image has no fine detail.
    small = max(side // OVERSAMPLING, 1)
    image = Image.new("RGB", (small, small), _muted(rng))
    pen = ImageDraw.Draw(image)
    pen.rectangle([0, rng.uniform(0.5, 0.9) * small, small, small], fill=_muted(rng))
    for _ in range(int(rng.integers(*clutter))):
        corners = blob(rng, rng.random(2), scale * rng.uniform(0.08, 0.3), small)
        pen.polygon(corners, fill=_muted(rng))
    image = image.filter(ImageFilter.GaussianBlur(scale * small * rng.uniform(*_DEFOCUS)))
    return image.resize((side, side), Image.Resampling.BILINEAR)


def _occlude(image: Image.Image, rng: np.random.Generator, most: int) -> None:
    """Paints things in front of the garment, near the edges of the frame."""
    side = image.width
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, most + 1))):
        angle = rng.uniform(0.0, 2 * np.pi)
        centre = 0.5 + rng.uniform(0.3, 0.5) * np.array([np.cos(angle), np.sin(angle)])
        pen.polygon(blob(rng, centre, rng.uniform(0.08, 0.2), side), fill=any_colour(rng))


def _expose(image: Image.Image, rng: np.random.Generator, how: Conditions) -> Image.Image:
    """Returns the image with the light, lens and sensor effects of `how`."""
    side = image.width
    if how.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, how.blur) * side / 96))
    values = np.asarray(image, np.float32)
    gain = 2.0 ** (rng.uniform(-how.gain, how.gain) + rng.uniform(-how.cast, how.cast, 3))
    slope = rng.uniform(-how.slant, how.slant, 2)
    axis = np.linspace(-1.0, 1.0, side)
    light = 1.0 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    noise = rng.standard_normal(values.shape, dtype=np.float32) * rng.uniform(0.0, how.noise)
    lit = values * (light[..., None] * gain).astype(np.float32) + noise
    return Image.fromarray(np.clip(np.round(lit), 0, 255).astype(np.uint8))


class Cloth(NamedTuple):
    """The printed cloth with folds, filling the frame, and the palette of its print."""

    image: Image.Image
    palette: np.ndarray


def weave(look: Look, cut: Cut, rng: np.random.Generator) -> Cloth:
    """Returns the cloth of a garment, mapped to the frame of `cut`."""
    (a, b), (c, d) = cut.matrix
    # Inverted by hand: a linear algebra library would start threads for these four numbers.
    inverse = np.array([[d, -b], [-c, a]], np.float32) / np.float32(a * d - b * c)
    axis = np.arange(cut.seams.width, dtype=np.float32) + 0.5
    offset = cut.offset.astype(np.float32)
    dx, dy = (axis - offset[0])[None, :], (axis - offset[1])[:, None]
    x = inverse[0, 0] * dx + inverse[0, 1] * dy
    y = inverse[1, 0] * dx + inverse[1, 1] * dy
    phase = rng.uniform(0.0, 1.0, 2)
    seen = surface(look.print)
    rgb = paint(seen, x + np.float32(phase[0]), y + np.float32(phase[1]))
    depth = np.float32(rng.uniform(0.03, 0.12))
    fold = 1.0 - depth * (1.0 + np.sin(x * np.float32(rng.uniform(6.0, 12.0)) + np.sin(y * 2.0)))
    return Cloth(Image.fromarray((rgb * fold[..., None]).astype(np.uint8)), seen.palette)


def sew_on(
    image: Image.Image,
    cut: Cut,
    cloth: Cloth,
    glass: tuple[int, ...],
    corner: tuple[int, int] = (0, 0),
) -> None:
    """Paints a garment.

    Args:
      image: the image to paint on.
      cut: the garment.
      cloth: its cloth.
      glass: colour of parts with fill "glass".
      corner: left and top of the garment's frame in `image`; parts outside it are clipped.
    """
    image.paste(glass, corner, cut.masks["glass"].point(lambda level: level * 0.4))
    image.paste(cloth.image, corner, cut.masks["body"])
    image.paste(_rgb(cloth.palette[1] * 0.85), corner, cut.masks["trim"])
    image.paste(_rgb(cloth.palette[0] * 0.15), corner, cut.seams)


def draw_image(seed: int, item: Item, role: str, number: int, size: int) -> bytes:
    """Returns an image of an item as JPEG; the same arguments give the same bytes.

    Args:
      seed: the dataset's seed.
      item: the item to show.
      role: "gallery" for a shop image, "query" for a street image.
      number: the image's number among those of the same item and role.
      size: side in pixels.
    """
    rng = stream(seed, item.vertical, item.item_id, role, number)
    image = _draw(item.vertical, look_of(item, rng), role, size, rng)
    return take(image, CONDITIONS[role], rng)


def _draw(vertical: str, look: Look, role: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Returns the oversampled image of a garment; `rng` draws everything except its look."""
    how = CONDITIONS[role]
    side = size * OVERSAMPLING
    cut = cut_out(vertical, look, how, side, rng)
    cloth = weave(look, cut, rng)
    image = _shop(rng, side) if role == GALLERY else street(rng, side)
    sew_on(image, cut, cloth, any_colour(rng))
    if how.occluders:
        _occlude(image, rng, how.occluders)
    return image


def take(image: Image.Image, how: Conditions, rng: np.random.Generator) -> bytes:
    """Returns the JPEG of an oversampled image taken under the conditions `how`."""
    image = _expose(image.reduce(OVERSAMPLING), rng, how)
    buffer = io.BytesIO()
    low, high = how.quality
    image.save(buffer, "JPEG", quality=int(rng.integers(low, high + 1)))
    return buffer.getvalue()
