"""Tiny runs with constructed embeddings, and real event files and untrained models."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from apparel_embed.common.files import write_json
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.evaluation.models import Embedded, summarise
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.report.inputs import Training, load_inputs
from apparel_embed.runs.stages.evaluation import COMPARISONS
from apparel_embed.store.record import Stage, StageSpec
from apparel_embed.store.runs import run_stage

NASTY = '<script src="x">&</script>'
DOLLARS = "$_under$ 100 %"
SILENT = "hats"
STEPS = 20


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated run."""

    directory: Path
    dataset: PreparedDataset
    evaluation: Stage
    trainings: list[Training]

    def inputs(self, *, saved_models=None, measure_speed=False):
        return load_inputs(
            self.dataset,
            self.evaluation,
            "summary.json",
            self.trainings,
            saved_models or {},
            measure_speed,
        )


def make_dataset(
    directory: Path,
    items: list[tuple[str, str, int]],
    roles: tuple[str, ...] = ("both",),
    seed: int = 0,
) -> PreparedDataset:
    """Prepares a dataset with the same items in splits train, val and test.

    Args:
      directory: the directory to create.
      items: item id, vertical and number of images per split.
      roles: roles of an item's images, in turn.
      seed: seed of the images' content; their names do not depend on it.
    """
    directory.mkdir()
    random = np.random.default_rng(seed)
    rows = []
    for number, (item, vertical, images) in enumerate(items):
        for split in ("train", "val", "test"):
            for view in range(images):
                name = f"{number}_{split}_{view}.png"
                pixels = random.integers(0, 255, (24, 32, 3), np.uint8)
                pixels[:, :16] = 255 * number // len(items)
                Image.fromarray(pixels).save(directory / name)
                rows.append([name, f"{item}-{split}", vertical, split, roles[view % len(roles)]])
    with open(directory / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "item_id", "vertical", "split", "role"], *rows])
    return prepare(
        PrepareConfig(manifest=directory / "manifest.csv", output=directory / "prepared"),
        processes=1,
    )


def make_run(
    directory: Path,
    dataset: PreparedDataset,
    *,
    student: bool = True,
    groups: list[list[str]] | None = None,
    events: bool = True,
) -> Run:
    """Creates a run in which a model's embeddings are the item's direction plus noise."""
    images = evaluation_set(dataset, "test")
    groups = groups or [[vertical] for vertical in dataset.verticals]
    alone = all(len(group) == 1 for group in groups)
    experts = ["specialists", "grouped_specialists"] if alone else ["grouped_specialists"]
    names = ["colour_histogram", "frozen_backbone", "combined", *experts]
    names += ["unified"] if student else []
    random = np.random.default_rng(1)
    _, item = np.unique(images.items.astype(str), return_inverse=True)
    centres = random.normal(size=(item.max() + 1, 8))
    models = {}
    for noise, name in zip((3.0, 2.0, 0.9, 0.7, 0.7, 0.8), names):
        embeddings = centres[item] + noise * random.normal(size=(len(images), 8))
        if name == "grouped_specialists" and alone:
            embeddings = models["specialists"].embeddings
        deployed = len(groups) if name in experts else int(name != "colour_histogram")
        models[name] = Embedded(
            embeddings.astype(np.float32), 1000 * deployed, deployed, name not in experts
        )

    evaluation = make_evaluation(directory, dataset, models)
    trainings = [
        make_training(directory, f"specialist-{number}", "+".join(group), experts[0], group, events)
        for number, group in enumerate(groups)
    ]
    for name in ("combined", *(["unified"] if student else [])):
        verticals = list(dataset.verticals)
        trainings.append(make_training(directory, name, name, name, verticals, events))
    return Run(directory, dataset, evaluation, trainings)


def make_evaluation(
    directory: Path,
    dataset: PreparedDataset,
    models: dict[str, Embedded],
    *,
    split: str = "test",
    training_seed: int = 0,
    behind: Sequence[Stage] = (),
) -> Stage:
    """Creates the evaluation stage of a run from given embeddings.

    Args:
      directory: directory of the run.
      dataset: a prepared dataset.
      models: embeddings by name of the model.
      split: the evaluated split.
      training_seed: distinguishes runs without stages behind them.
      behind: the stages recorded as inputs of the evaluation.
    """
    images = evaluation_set(dataset, split)

    def evaluate(stage: Path) -> dict:
        for name, model in models.items():
            path = stage / "embeddings" / f"{name}.parquet"
            write_embeddings(path, images.records, model.embeddings)
        write_json(stage / "summary.json", summarise(models, images, COMPARISONS, seed=0))
        return {}

    return run_stage(
        StageSpec(
            directory / "evaluation",
            flags={"split": split, "seed": 0},
            inputs={
                "prepared": dataset.fingerprint,
                "student": f"of seed {training_seed}",
                **{stage.name: stage.fingerprint for stage in behind},
            },
            work=evaluate,
        )
    )


def make_training(
    directory: Path, name: str, label: str, model: str, verticals: list[str], events: bool
) -> Training:
    from apparel_embed.models.embedding import (
        ModelConfig,
        build_embedding_model,
        save_embedding_model,
    )

    def train(stage: Path) -> dict:
        config = ModelConfig(image_size=32, embedding_dim=8)
        save_embedding_model(stage / "model", build_embedding_model(config), config)
        if events:
            write_scalars(stage / "tensorboard", "loss", {s: 1 / s for s in range(1, STEPS + 1)})
            write_scalars(stage / "tensorboard", "validation/r_at_1", {10: 0.25, STEPS: 0.125})
        return {
            "train_images": 12,
            "kept_step": 10,
            "validation_r_at_1": 0.25,
            "last_loss": 1 / STEPS,
        }

    flags = {"verticals": verticals, "optimization": {"steps": STEPS}}
    return Training(
        label, model, run_stage(StageSpec(directory / name, flags=flags, inputs={}, work=train))
    )


def write_scalars(directory: Path, name: str, values: dict[int, float]) -> None:
    """Writes an event file in the way of trainings."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(directory))
    with writer.as_default():
        for step, value in values.items():
            tf.summary.scalar(name, value, step)
    writer.close()


def is_drawn(png: bytes) -> bool:
    """Returns whether a PNG has more than ten colours; fails if it is not a valid PNG."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert "Software" not in image.info
        colours = image.convert("RGB").getcolors(1 << 24)
    return len(colours) > 10


class Page(html.parser.HTMLParser):
    """A parsed page: its tags with their attributes, tables and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))

    def handle_data(self, data):
        self.text += data
        opened = next((tag for tag, _ in reversed(self.tags) if tag in ("td", "th", "/tr")), None)
        if opened in ("td", "th") and self.tags[-1][0] == opened:
            self.tables[-1][-1][-1] += data
