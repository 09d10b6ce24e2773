"""Worst queries and projector, read back with TensorBoard's own code."""

import io
import json

import numpy as np
import pytest
from event_files import only_image, read_events
from PIL import Image
from report_runs import DOLLARS, NASTY, SILENT, make_dataset, make_evaluation
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tensorboard_plugins import Plugin

from apparel_embed.evaluation.models import Embedded
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.report import tensorboard
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages import summaries as stage_of_summaries
from apparel_embed.runs.stages.summaries import summaries_stage

pytestmark = pytest.mark.slow

BROKEN = "tab\tand\nline"
ROLES = ("gallery", "query", "both")
MODELS = ("colour_histogram", "combined", "specialists", "unified")


def evaluated(directory, dataset, names, seed=0):
    images = evaluation_set(dataset, "test")
    random = np.random.default_rng(seed)
    models = {
        name: Embedded(
            random.normal(size=(len(images), 8)).astype(np.float32), 10, 1, name != "specialists"
        )
        for name in names
    }
    return models, make_evaluation(directory, dataset, models, training_seed=seed)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shown")
    items = [(f"{NASTY}{number}", NASTY, 3) for number in range(4)]
    items += [(f"{BROKEN}{number}", DOLLARS, 3) for number in range(3)]
    items += [("hat", SILENT, 1)]
    dataset = make_dataset(directory / "data", items, ROLES)
    models, evaluation = evaluated(directory / "run", dataset, MODELS)
    return dataset, models, summaries_stage(Run(directory / "run", dataset), evaluation)


def test_the_worst_queries_of_each_vertical_with_an_answer_are_drawn(shown):
    _, _, stage = shown
    found, _ = read_events(stage.directory / "tensorboard")

    assert stage.result["worst_queries"] == sorted([NASTY, DOLLARS])
    assert set(found) == {f"worst_queries/{name}" for name in (NASTY, DOLLARS)}
    for one in found.values():
        assert one.plugin == "images"
        # Four queries with two models each.
        assert only_image(one).shape[0] > 500
        assert len(np.unique(only_image(one).reshape(-1, 3), axis=0)) > 100


def test_the_projector_serves_embeddings_images_and_labels_of_student_and_specialists(shown):
    dataset, models, stage = shown
    run_dir = stage.directory.parent
    get = Plugin(ProjectorPlugin, run_dir)
    records = dataset.select(split="test")

    assert json.loads(get("/runs")) == ["summaries/tensorboard"]
    run = {"run": "summaries/tensorboard"}
    config = json.loads(get("/info", **run))
    # The page sorts by name and opens the first.
    names = sorted(one["tensorName"] for one in config["embeddings"])
    assert names == ["1 unified", "2 specialists"]
    for one in config["embeddings"]:
        name = one["tensorName"]
        served = np.frombuffer(get("/tensor", name=name, **run), np.float32)
        np.testing.assert_array_equal(served.reshape(-1, 8), models[name[2:]].embeddings)
        lines = get("/metadata", name=name, **run).decode().splitlines()
        assert lines[0].split("\t") == ["item", "vertical", "role", "record"]
        cells = [line.split("\t") for line in lines[1:]]
        assert [int(record) for *_, record in cells] == records.tolist()
        assert {len(line) for line in cells} == {4}
        assert {role for _, _, role, _ in cells} == set(ROLES)
        assert {vertical for _, vertical, _, _ in cells} == {NASTY, DOLLARS, SILENT}
        assert "tab and line0-test" in {item for item, *_ in cells}
        with Image.open(io.BytesIO(get("/sprite_image", name=name, **run))) as sprite:
            # 22 images in a square grid.
            assert sprite.size == (5 * 48, 5 * 48)
            assert one["sprite"]["singleImageDim"] == [48, 48]
            pixels = np.asarray(sprite)
    for place, record in enumerate(records.tolist()):
        top, left = place // 5 * 48, place % 5 * 48
        cell = pixels[top : top + 48, left : left + 48]
        with Image.open(io.BytesIO(dataset.read_images([record])[0])) as whole:
            # Images have 32 x 24 pixels, with one colour in the left half.
            assert whole.size == (32, 24)
            expected = np.asarray(whole)[:, 2:14].mean()
        assert cell[8:40, 3:20].mean() == pytest.approx(expected, abs=3)
        assert (cell[:5] == 255).all()


def test_many_images_are_sampled_and_the_sprite_is_bounded(shown, tmp_path, monkeypatch):
    dataset, models, _ = shown
    side = int(np.ceil(np.sqrt(tensorboard.MOST_IMAGES))) * tensorboard.SPRITE_SIDE
    assert side <= 8192
    monkeypatch.setattr(tensorboard, "MOST_IMAGES", 10)
    records = dataset.select(split="test")
    files = tensorboard.write_projector(
        tmp_path, dataset, records, {"unified": models["unified"].embeddings}
    )
    assert files == ["metadata.tsv", "sprite.png", "unified.tsv"]
    lines = (tmp_path / "metadata.tsv").read_text().splitlines()[1:]
    chosen = [records.tolist().index(int(line.split("\t")[3])) for line in lines]
    assert len(chosen) == 10
    values = np.loadtxt(tmp_path / "unified.tsv", dtype=np.float32)
    np.testing.assert_array_equal(values, models["unified"].embeddings[chosen])
    with Image.open(tmp_path / "sprite.png") as sprite:
        assert sprite.size == (4 * 48, 4 * 48)


def test_the_combined_model_is_shown_without_student_and_specialists(shown, tmp_path):
    dataset, _, _ = shown
    _, evaluation = evaluated(tmp_path, dataset, ["colour_histogram", "combined"])
    stage = summaries_stage(Run(tmp_path, dataset), evaluation)
    assert stage.result["projector"] == ["metadata.tsv", "sprite.png", "combined.tsv"]


def test_nothing_is_written_if_no_model_was_trained(shown, tmp_path):
    dataset, _, _ = shown
    _, evaluation = evaluated(tmp_path, dataset, ["colour_histogram"])
    stage = summaries_stage(Run(tmp_path, dataset), evaluation)
    assert stage.result == {"worst_queries": [], "projector": []}


def test_the_stage_is_skipped_but_repeated_for_another_evaluation(shown, tmp_path, monkeypatch):
    dataset, _, _ = shown
    _, first = evaluated(tmp_path, dataset, ["unified"])
    stage = summaries_stage(Run(tmp_path, dataset), first)
    assert summaries_stage(Run(tmp_path, dataset), first).skipped
    tensors = stage.directory / "tensorboard/unified.tsv"
    before = tensors.read_text()

    first.directory.rename(tmp_path / "earlier")
    _, second = evaluated(tmp_path, dataset, ["unified"], seed=1)

    def killed(inputs, directory):
        directory.mkdir()
        (directory / "events.out.tfevents.1.x").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage_of_summaries, "write_summaries", killed)
        summaries_stage(Run(tmp_path, dataset), second)
    assert tensors.read_text() == before
    assert not summaries_stage(Run(tmp_path, dataset), second).skipped
    assert tensors.read_text() != before
    # Leftovers of the killed call are deleted.
    assert not (tensors.parent / "events.out.tfevents.1.x").exists()
