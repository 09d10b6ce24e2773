"""Recipes: sets of flag defaults, one for each kind of initial weights."""

from __future__ import annotations

from typing import Any

from absl import flags, logging

from apparel_embed.cli.define import MODEL, define

AUTO = "auto"
SCRATCH = "scratch"
PRETRAINED = "pretrained"
_RECIPE = "recipe"

RECIPES: dict[str, dict[str, object]] = {
    SCRATCH: {},
    PRETRAINED: {
        "backbone": "efficientnet_lite_b0",
        "pooling": "pyramid",
        "train_backbone": "auto",
        "image_size": 192,
        "min_images": 1,
        "items_per_batch": 20,
        "images_per_item": 3,
        "margin": 0.5,
        "combined_steps": 60,
        "combined_learning_rate": 1e-3,
        "specialist_steps": 20,
        "specialist_learning_rate": 3e-4,
        "student_learning_rate": 1e-3,
        "student_batch_size": 32,
    },
}
"""The flag defaults that each recipe changes. Flags given on the command line win."""


def define_recipe() -> None:
    """Defines --recipe; see `apply_recipe`."""
    define(
        _RECIPE,
        AUTO,
        "set of flag defaults: scratch, for --init_weights=none; pretrained, for a backbone that "
        "was trained on other images; auto, the one that fits --init_weights. Flags given on the "
        "command line win",
        choices=(AUTO, *RECIPES),
        group=MODEL,
    )


def apply_recipe() -> None:
    """Sets the recipe's flags that are not given; does nothing in binaries without --recipe.

    Flags that the binary does not have are skipped. The values set are logged.
    """
    values: Any = flags.FLAGS
    if _RECIPE not in values:
        return
    name, why = values[_RECIPE].value, ""
    if name == AUTO:
        weights = values["init_weights"].value
        name = SCRATCH if weights == "none" else PRETRAINED
        why = f" (--init_weights={weights})"
    settings = {
        flag: value
        for flag, value in RECIPES[name].items()
        if flag in values and not values[flag].present
    }
    for flag, value in settings.items():
        values.set_default(flag, value)
    given = " ".join(f"--{flag}={value}" for flag, value in settings.items())
    logging.info("recipe %s%s%s", name, why, f": {given}" if given else "")
