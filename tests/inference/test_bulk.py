import csv
import dataclasses
import functools
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pyarrow import fs

from apparel_embed.common import locations
from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.inference import bulk, bulk_shard
from apparel_embed.inference.bulk import bulk_embed, plan_embedding, run_here
from apparel_embed.inference.bulk_shard import BulkConfig, embed_shards
from apparel_embed.inference.bulk_sources import (
    SourceConfig,
    open_source,
)
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.serving.exported import LARGEST_SERVED_PIXELS
from apparel_embed.serving.local import ImageEmbedder
from apparel_embed.serving.saved_model import ServingModule
from apparel_embed.store.sharded import ShardedDirectory

SIZE, DIM = 24, 8
IMAGES = 64


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(0)
    return build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=DIM))


@pytest.fixture(scope="module")
def embed(model):
    module = ServingModule(model, LARGEST_SERVED_PIXELS)
    return ImageEmbedder(module, module.embed_bytes.get_concrete_function(), DIM)


def configure(output, kind, location, **changed):
    source = {"shard_images": 20, "settings": ImageSettings()}
    source.update({name: changed.pop(name) for name in list(changed) if name in source})
    return BulkConfig(
        source=SourceConfig(kind, str(location), **source),
        **{"model_fingerprint": "model", "output": str(output), "batch_size": 8, **changed},
    )


def here(embed):
    return functools.partial(run_here, load=lambda: embed, threads=1)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def rejects(directory):
    with open(directory / "rejects.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(directory):
    files = sorted(directory.glob("embeddings-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def embedded(tiny_prepared, embed, tmp_path_factory):
    """The embeddings of the prepared dataset, in four shards."""
    output = tmp_path_factory.mktemp("bulk") / "out"
    summary = bulk_embed(configure(output, "prepared", tiny_prepared.directory), here(embed))
    return output, summary


def test_a_prepared_dataset_gives_the_embeddings_of_evaluation(embedded, tiny_prepared, model):
    output, summary = embedded
    records, embeddings = read_embeddings(output)
    assert records.tolist() == list(range(IMAGES))
    expected = Embedder(model).records(tiny_prepared, records)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert (summary["images"], summary["embedded"], summary["rejected"]) == (
        IMAGES,
        IMAGES,
        0,
    )
    assert summary["dim"] == DIM
    assert [shard["rows"] for shard in summary["shards"]] == [20, 20, 20, 4]
    assert sorted(contents(output)) == sorted(
        ["embed.json", "rejects.csv", *(shard["file"] for shard in summary["shards"])]
    )
    assert json.loads((output / "embed.json").read_text()) == summary
    assert pq.read_schema(output / summary["shards"][0]["file"]).names == ["record", "embedding"]


@pytest.mark.slow
def test_a_manifest_and_a_directory_give_identical_embeddings_and_keep_columns(
    embedded, tiny_prepared, embed, tmp_path
):
    _, expected = read_embeddings(embedded[0])
    source = tiny_prepared.directory.parent
    bulk_embed(configure(tmp_path / "m", "manifest", source / "manifest.csv"), here(embed))
    found = rows(tmp_path / "m")
    assert list(found[0]) == ["image", "item_id", "vertical", "split", "embedding"]
    assert [row["image"] for row in found] == tiny_prepared.column("image").tolist()
    assert [row["item_id"] for row in found] == tiny_prepared.column("item_id").tolist()
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in found]), expected)
    summary = bulk_embed(configure(tmp_path / "d", "images", source), here(embed))
    assert summary["embedded"] == IMAGES
    by_name = {row["image"]: row["embedding"] for row in rows(tmp_path / "d")}
    assert list(by_name) == sorted(tiny_prepared.column("image"))
    np.testing.assert_allclose([by_name[row["image"]] for row in found], expected, atol=1e-6)


@pytest.mark.slow
def test_images_and_result_may_be_in_a_store(embedded, tiny_prepared, embed, tmp_path, monkeypatch):
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(locations, "_connect", lambda root: (system, root.partition("://")[2]))
    source, bucket = tiny_prepared.directory.parent, tmp_path / "bucket"
    bucket.mkdir()
    lines = (source / "manifest.csv").read_text().splitlines()
    (bucket / "manifest.csv").write_text("\n".join([*lines, "none.png,x,bags,train"]))
    for image in tiny_prepared.column("image"):
        (bucket / image).write_bytes((source / image).read_bytes())
    config = configure("shop://bucket/out", "manifest", "shop://bucket/manifest.csv")

    summary = bulk_embed(config, here(embed))
    assert bulk_embed(config, here(embed)) == summary
    assert (bucket / "out" / "rejects.csv").read_text() == "image,reason\nnone.png,no such file\n"
    names = [shard["file"] for shard in summary["shards"]]
    assert sorted(contents(bucket / "out")) == sorted(["embed.json", "rejects.csv", *names])
    for name in names:
        found = pq.read_table(bucket / "out" / name)["embedding"].to_pylist()
        expected = pq.read_table(embedded[0] / name)["embedding"].to_pylist()
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_bad_images_are_listed_and_do_not_affect_others(tiny_prepared, embed, embedded, tmp_path):
    _, expected = read_embeddings(embedded[0])
    shutil.copytree(tiny_prepared.directory.parent, tmp_path / "data")
    names = tiny_prepared.column("image")
    (tmp_path / "data" / names[3]).write_bytes(b"not an image")
    (tmp_path / "data" / names[21]).unlink()
    manifest = tmp_path / "data" / "manifest.csv"
    config = configure(tmp_path / "out", "manifest", manifest)
    summary = bulk_embed(config, here(embed))
    assert (summary["embedded"], summary["rejected"]) == (IMAGES - 2, 2)
    assert rejects(tmp_path / "out") == [
        {"image": names[3], "reason": "not an image, or of an unknown format"},
        {"image": names[21], "reason": "no such file"},
    ]
    good = np.delete(np.arange(IMAGES), [3, 21])
    found = np.float32([row["embedding"] for row in rows(tmp_path / "out")])
    np.testing.assert_allclose(found, expected[good], atol=1e-6)


def test_images_that_the_model_cannot_embed_are_listed(tiny_prepared, embed, tmp_path, monkeypatch):
    read = PreparedDataset.read_images

    def with_damage(self, records):
        if 41 in records:
            raise UserError("shard: record 41 is damaged")
        return [
            b"junk" if record == 7 else image for record, image in zip(records, read(self, records))
        ]

    class Poisoned:
        dim, fields = DIM, ()

        def __call__(self, images):
            answer = embed(images)
            if len(images) == 4:
                answer.embeddings[0, 0] = np.nan
            return answer

    monkeypatch.setattr(PreparedDataset, "read_images", with_damage)
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    summary = bulk_embed(config, here(Poisoned()))
    names = tiny_prepared.column("image")
    # Batches of 8, 8 and 4; the damaged record makes the last batch of its shard one shorter.
    assert rejects(tmp_path / "out") == [
        {"image": names[7], "reason": "cannot be decoded"},
        {"image": names[16], "reason": "the model's embedding is not finite"},
        {"image": names[36], "reason": "the model's embedding is not finite"},
        {"image": names[41], "reason": "shard: record 41 is damaged"},
        {"image": names[60], "reason": "the model's embedding is not finite"},
    ]
    assert summary["embedded"] == IMAGES - 5
    assert len(read_embeddings(tmp_path / "out")[0]) == IMAGES - 5


def test_only_bad_images_give_an_empty_result(tiny_prepared, embed, tmp_path, monkeypatch):
    monkeypatch.setattr(PreparedDataset, "read_images", lambda self, records: [b""] * len(records))
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    summary = bulk_embed(config, here(embed))
    assert (summary["embedded"], summary["rejected"], summary["dim"]) == (0, IMAGES, DIM)
    assert read_embeddings(tmp_path / "out")[1].shape == (0, DIM)


class Failing:
    """Embeds some batches and then fails."""

    dim, fields = DIM, ()

    def __init__(self, embed, batches):
        self.embed, self.left, self.done = embed, batches, 0

    def __call__(self, images):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("power cut")
        self.done += 1
        return self.embed(images)


@pytest.mark.parametrize("batches", [0, 2, 3, 5, 9])
def test_a_call_interrupted_at_any_batch_resumes_to_the_same_bytes(
    embedded, tiny_prepared, embed, tmp_path, batches
):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    failing = Failing(embed, batches)
    assert plan_embedding(config) == ("to do", IMAGES, IMAGES)
    assert not any(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="power cut"):
        bulk_embed(config, here(failing))
    partial = tmp_path / "out.partial"
    assert partial.is_dir() and not (tmp_path / "out").exists()
    done = len(list(partial.glob("embeddings-*")))
    # A shard has three batches; only complete shards are written.
    assert done == batches // 3
    assert plan_embedding(config) == ("to be resumed", IMAGES, IMAGES - 20 * done)
    # A leftover of a process that was killed.
    (partial / ".embeddings-00001-of-00004.parquet.abc").write_bytes(b"half")
    again = Failing(embed, 100)
    bulk_embed(config, here(again))
    assert again.done == 10 - 3 * done
    assert contents(tmp_path / "out") == contents(embedded[0])
    assert not partial.exists()
    assert plan_embedding(config) == ("finished", IMAGES, 0)
    with pytest.raises(UserError, match=r"out was made .* batch_size was 8, now it is 9; choose"):
        plan_embedding(dataclasses.replace(config, batch_size=9))


def test_a_finished_embedding_is_not_repeated(embedded, tiny_prepared):
    output, summary = embedded
    config = configure(output, "prepared", tiny_prepared.directory)
    assert bulk_embed(config, here(Failing(None, 0))) == summary


def test_writing_a_missing_summary_needs_no_model(
    embedded, tiny_prepared, embed, tmp_path, monkeypatch
):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    for owner, step in ((bulk, "_summarise"), (ShardedDirectory, "_publish")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                bulk_embed(config, here(embed))
        embed = Failing(None, 0)
    bulk_embed(config, here(embed))
    assert contents(tmp_path / "out") == contents(embedded[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 16}, "batch_size was 8, now it is 16"),
        ({"shard_images": 10}, "shard_images was 20, now it is 10"),
        (
            {"model_fingerprint": "other"},
            "settings: the model differs; choose",
        ),
        ({"kind": "images"}, "kind was prepared, now it is images; the images differ"),
        ({"batch_size": 0}, "--batch_size=0: expected 1 or more"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_output_made_from_other_inputs_is_refused(
    embedded, tiny_prepared, tmp_path, changed, message, finished
):
    output = embedded[0]
    if not finished:
        output = tmp_path / "out"
        shutil.copytree(embedded[0], tmp_path / "out.partial")
    changed = dict(changed)
    kind = changed.pop("kind", "prepared")
    location = tiny_prepared.directory if kind == "prepared" else tiny_prepared.directory.parent
    before = contents(embedded[0])
    with pytest.raises(UserError, match=message):
        bulk_embed(configure(output, kind, location, **changed), here(Failing(None, 0)))
    assert contents(embedded[0]) == before


def test_an_output_that_is_not_a_bulk_embedding_is_refused(tiny_prepared, embed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    with pytest.raises(UserError, match="out exists and is not a bulk embedding"):
        bulk_embed(config, here(embed))


def test_a_directory_without_images_is_refused(tmp_path, embed):
    (tmp_path / "images").mkdir()
    config = configure(tmp_path / "out", "images", tmp_path / "images")
    with pytest.raises(UserError, match="images: contains no images"):
        bulk_embed(config, here(embed))


def test_rows_are_written_incrementally_with_few_images_in_memory(
    tiny_prepared, embed, tmp_path, monkeypatch
):
    monkeypatch.setattr(bulk_shard, "_ROWS_PER_GROUP", 16)
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory, shard_images=64)
    source = open_source(config.source)
    source.plan(config.directory)
    taken = embedded_so_far = most = 0
    real = source.images

    def images(*args, **options):
        nonlocal taken, most
        for image in real(*args, **options):
            taken += 1
            most = max(most, taken - embedded_so_far)
            yield image

    def report(count):
        nonlocal embedded_so_far
        embedded_so_far += count

    monkeypatch.setattr(source, "images", images)
    embed_shards(config, source, [0], 1, embed, report, 1)
    assert embedded_so_far == taken == IMAGES
    # Batches of 8: two in progress, one waiting, and one being collected.
    assert most <= 4 * 8
    (file,) = (tmp_path / "out.partial").glob("*.parquet")
    assert pq.read_metadata(file).num_row_groups == 4


def test_a_second_writer_is_refused(tiny_prepared, embed, tmp_path):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)

    def run_with_second_writer(*args):
        with pytest.raises(UserError, match=r"out: .*process"):
            bulk_embed(config, here(embed))
        return here(embed)(*args)

    bulk_embed(config, run_with_second_writer)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_plan_is_an_error(tiny_prepared, embed, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "plan.json").write_text("{")
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    with pytest.raises(UserError, match=r"plan.json: is damaged"):
        bulk_embed(config, here(embed))
    assert dataclasses.replace(config, output="gs://b/out").directory.work == "gs://b/out"
