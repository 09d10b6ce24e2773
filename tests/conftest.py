"""Shared fixtures."""

from __future__ import annotations

import colorsys
import csv
import os
import signal
import sys

import numpy as np
import pytest
from absl import logging
from PIL import Image

# First, as it sets which Keras TensorFlow uses; some tests would import keras-cv before it.
import apparel_embed  # noqa: F401

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The same arithmetic in the tests' process and in the binaries that they start.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# As in binaries, whichever test comes first in a process.
logging.set_verbosity(logging.INFO)
# Background processes of a shell ignore Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

VERTICALS = ("dresses", "bags")
SPLIT_OF_ITEM = ("train",) * 4 + ("val",) * 2 + ("test",) * 2
IMAGES_PER_ITEM = 4
SIDE = 32
# Each takes minutes. They go first, so that no worker starts one of them last.
LONGEST_FILES = (
    "test_docs_execution.py",
    "test_pipeline.py",
    "test_killed_runs.py",
    "test_replicas.py",
    "test_grouping.py",
    "test_whole_catalogue.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the longest files first and keeps the order of the others."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


def _image(hue: float, random: np.random.Generator) -> np.ndarray:
    """Returns a noisy image with one hue: uint8 [SIDE, SIDE, 3]."""
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.8))
    noisy = colour + random.normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets PATH as `source .venv/bin/activate` does: `python` is the one that runs the tests."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)


@pytest.fixture(scope="session")
def tiny_prepared(tmp_path_factory: pytest.TempPathFactory):
    """A prepared dataset: 2 verticals of 8 items (4 train, 2 val, 2 test) with 4 images each.

    Items differ in their hue, so a model can distinguish them after a few steps. The manifest is
    next to the dataset, `manifest.csv`; treat both as read-only.
    """
    from apparel_embed.data.prepare import prepare
    from apparel_embed.data.prepare_plan import PrepareConfig

    directory = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(0)
    rows = []
    items = len(VERTICALS) * len(SPLIT_OF_ITEM)
    for index in range(items):
        vertical = VERTICALS[index % len(VERTICALS)]
        split = SPLIT_OF_ITEM[index // len(VERTICALS)]
        for view in range(IMAGES_PER_ITEM):
            name = f"{vertical}_{index}_{view}.png"
            Image.fromarray(_image(index / items, random)).save(directory / name)
            rows.append([name, f"item{index}", vertical, split])
    with open(directory / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "item_id", "vertical", "split"], *rows])
    config = PrepareConfig(manifest=directory / "manifest.csv", output=directory / "prepared")
    return prepare(config, processes=1)


@pytest.fixture(scope="session")
def tiny_unlabelled(tiny_prepared, tmp_path_factory: pytest.TempPathFactory):
    """The same images as `tiny_prepared`, record by record, but some have no label.

    Items 0 and 1, the first of each vertical, are unlabelled: 8 of the 32 training images.
    """
    from apparel_embed.data.prepare import prepare
    from apparel_embed.data.prepare_plan import PrepareConfig

    source, directory = tiny_prepared.directory.parent, tmp_path_factory.mktemp("unlabelled")
    with open(source / "manifest.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with open(directory / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name, item, vertical, split in rows:
            known = [item, vertical, split]
            lost = ["", vertical, "unlabelled"]
            writer.writerow([source / name, *(lost if item in ("item0", "item1") else known)])
    config = PrepareConfig(manifest=directory / "manifest.csv", output=directory / "prepared")
    return prepare(config, processes=1)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory):
    """The inspection of a dataset with many problems, see `inspected.write_hostile`."""
    from inspected import write_hostile

    from apparel_embed.data.inspection.config import InspectConfig
    from apparel_embed.data.inspection.inspect import inspect

    manifest = write_hostile(tmp_path_factory.mktemp("hostile"))
    return inspect(InspectConfig(manifest), processes=2)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory):
    """A directory of three models with random weights: "bags", "dresses" and "reference"."""
    from tiny_teachers import write_model

    directory = tmp_path_factory.mktemp("teachers")
    for seed, name in enumerate(("bags", "dresses", "reference")):
        write_model(directory / name, seed)
    return directory
