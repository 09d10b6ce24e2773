"""The synthetic world: its verticals, the cue that defines an item in each, and its items."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import check_settings, seed_setting, setting
from apparel_embed.data.manifest import SPLITS, UNLABELLED
from apparel_embed.data.synthetic import accessories, clothes
from apparel_embed.data.synthetic.prints import FAMILIES, PRINT_NAMES
from apparel_embed.data.synthetic.shapes import Outline

OUTLINE, PRINT = "outline", "print"

# What two images of the same item share. With cue outline, print and colour are drawn at random for
# each image; with cue print, the outline is.
CUES: Mapping[str, str] = {
    "dress": OUTLINE,
    "top": PRINT,
    "bag": PRINT,
    "eyewear": OUTLINE,
    "footwear": PRINT,
    "trousers": PRINT,
    "skirt": OUTLINE,
    "headwear": OUTLINE,
}

OUTLINES: Mapping[str, Outline] = {
    "dress": clothes.dress,
    "top": clothes.top,
    "bag": accessories.bag,
    "eyewear": accessories.eyewear,
    "footwear": accessories.footwear,
    "trousers": clothes.trousers,
    "skirt": clothes.skirt,
    "headwear": accessories.headwear,
}

# Candidates drawn per item kept: with more candidates, items are farther apart.
_CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """What to draw; equal configurations give equal bytes.

    Attributes:
      unlabelled_items: additional items per vertical, whose images have no item_id. Their number
        does not change the other items and their images.
      scenes: street scenes of several garments in split train; val and test have a quarter as many
        each, but at least one. Their number does not change any other image.

    Raises:
      UserError: a value is out of range; the error names the value and the range.
    """

    seed: int = seed_setting("everything drawn", rare=True)
    verticals: tuple[str, ...] = setting(
        tuple(CUES), f"comma-separated verticals to draw, from {', '.join(CUES)}"
    )
    train_items: int = setting(60, "items per vertical in split train", 0, 2000)
    val_items: int = setting(15, "items per vertical in split val", 0, 2000)
    test_items: int = setting(40, "items per vertical in split test", 0, 2000)
    unlabelled_items: int = setting(
        0, "items per vertical in split unlabelled, without item_id", 0, 2000, rare=True
    )
    gallery_per_item: int = setting(2, "shop images per item", 1, 1000, rare=True)
    query_per_item: int = setting(3, "street images per item", 1, 1000, rare=True)
    image_size: int = setting(96, "side of the drawn images in pixels", 32, 1024, rare=True)
    scenes: int = setting(
        0,
        "street scenes of 1 to 5 boxed garments in split train; val and test have a quarter each",
        0,
        200_000,
        rare=True,
    )
    scene_size: int = setting(256, "side of the street scenes in pixels", 128, 1024, rare=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verticals", tuple(self.verticals))
        check_settings(self)
        if not self.verticals:
            raise UserError(f"verticals: none given; choose from {', '.join(CUES)}")
        for name in self.verticals:
            if name not in CUES:
                raise UserError(f"verticals: unknown {name!r}; choose from {', '.join(CUES)}")
        if len(set(self.verticals)) < len(self.verticals):
            raise UserError(f"verticals: {','.join(self.verticals)} repeats a name; remove it")
        if self.labelled_items == 0:
            raise UserError("train_items, val_items, test_items: all 0; set at least one")
        if self.unlabelled_items and not self.train_items:
            raise UserError(
                f"unlabelled_items={self.unlabelled_items} needs a specialist to train on them; "
                "set train_items to at least 1"
            )

    @property
    def labelled_items(self) -> int:
        """Number of items per vertical whose images have an item_id."""
        return self.train_items + self.val_items + self.test_items

    @property
    def images(self) -> int:
        """Total number of images."""
        items = len(self.verticals) * (self.labelled_items + self.unlabelled_items)
        of_items = items * (self.gallery_per_item + self.query_per_item)
        return of_items + sum(self.scenes_of_splits.values())

    @property
    def scenes_of_splits(self) -> dict[str, int]:
        """Number of street scenes by split, without splits that have none."""
        if not self.scenes:
            return {}
        few = max(1, self.scenes // 4)
        sizes = (self.train_items, self.val_items, self.test_items)
        counts = zip(SPLITS, sizes, (self.scenes, few, few))
        return {split: count for split, size, count in counts if size}

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as a JSON value, without those for images that are not drawn."""
        settings = {**dataclasses.asdict(self), "verticals": list(self.verticals)}
        unused = [] if self.unlabelled_items else ["unlabelled_items"]
        unused += [] if self.scenes else ["scenes", "scene_size"]
        return {name: value for name, value in settings.items() if name not in unused}


@dataclasses.dataclass(frozen=True)
class Item:
    """One garment.

    Attributes:
      item_id: a name unique in the dataset.
      vertical: its vertical.
      split: train, val, test or unlabelled.
      identity: float64 vector in [0, 1]; outline or print parameters, depending on the cue.
    """

    item_id: str
    vertical: str
    split: str
    identity: np.ndarray


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the random stream of these names, the same on every machine and in every process."""
    text = "/".join(str(part) for part in (seed, *names))
    key = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def identity_size(vertical: str) -> int:
    """Returns the length of the identity vectors of a vertical."""
    return len(PRINT_NAMES) if CUES[vertical] == PRINT else len(OUTLINES[vertical].names)


def visible(vertical: str, identities: np.ndarray) -> np.ndarray:
    """Maps identities [n, size] to coordinates whose distances measure visible differences."""
    if CUES[vertical] == OUTLINE:
        return identities
    p = dict(zip(PRINT_NAMES, identities.T))
    family = np.minimum((p["family"] * len(FAMILIES)).astype(int), len(FAMILIES) - 1)
    turn = 2 * np.pi * p["hue"]
    return np.concatenate(
        [
            0.8 * np.eye(len(FAMILIES))[family],
            np.stack([0.5 * np.cos(turn), 0.5 * np.sin(turn)], axis=1),
            np.stack([0.8 * p["tone"], 0.4 * p["accent_tone"], 0.3 * p["accent_hue"]], axis=1),
            np.stack([0.5 * p["scale"], 0.3 * p["angle"]], axis=1),
        ],
        axis=1,
    )


def spread(points: np.ndarray, count: int, before: Iterable[np.ndarray] = ()) -> np.ndarray:
    """Returns indices of points, each the farthest from those chosen before it.

    Args:
      points: float64 [n, size].
      count: the number of points to choose, at most n.
      before: points, float64 [size] each, that count as chosen already; if there are none, the
        first of `points` is chosen first.

    Returns:
      int64 [count], in the order chosen.
    """
    chosen = np.empty(count, np.int64)
    nearest = np.full(len(points), np.inf)
    for point in before:
        nearest = np.minimum(nearest, np.square(points - point).sum(axis=1))
    for place in range(count):
        chosen[place] = int(np.argmax(nearest))
        gap = np.square(points - points[chosen[place]]).sum(axis=1)
        nearest = np.minimum(nearest, gap)
    return chosen


def items_of(config: SyntheticConfig, vertical: str) -> list[Item]:
    """Returns the items of a vertical, ordered by id, well spread over its space."""
    labelled = _identities(config, vertical, "items", config.labelled_items)
    # Unlabelled items have their own random stream, so labelled ones do not depend on their number.
    further = _identities(config, vertical, UNLABELLED, config.unlabelled_items, labelled)
    sizes = (config.train_items, config.val_items, config.test_items, config.unlabelled_items)
    splits = [split for split, size in zip(SPLITS, sizes) for _ in range(size)]
    return [
        Item(f"{vertical}-{number:04d}", vertical, split, identity)
        for number, (split, identity) in enumerate(zip(splits, [*labelled, *further]))
    ]


def _identities(
    config: SyntheticConfig, vertical: str, name: str, count: int, before: np.ndarray | None = None
) -> np.ndarray:
    """Returns identities, float64 [count, size], far from `before` and from each other."""
    rng = stream(config.seed, vertical, name)
    candidates = rng.random((_CANDIDATES * count + 32, identity_size(vertical)))
    points = visible(vertical, candidates)
    if before is None:
        # The farthest points come first; shuffled, every split covers the whole space.
        return candidates[spread(points, count)[rng.permutation(count)]]
    return candidates[spread(points, count, visible(vertical, before))]
