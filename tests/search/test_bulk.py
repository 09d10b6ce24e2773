"""An index filled with bulk embeddings of a catalogue that was never prepared."""

import dataclasses
import functools
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from tiny_run import run_tool

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.inference.bulk import BulkConfig, bulk_embed, run_here
from apparel_embed.inference.bulk_sources import MANIFEST, SourceConfig
from apparel_embed.search.build import build_index, fill_index, plan_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, Version, open_index
from apparel_embed.search.limits import Limits
from apparel_embed.search.server import SearchSources, make_service, open_searcher
from apparel_embed.search.source import GALLERY, bulk_rows
from apparel_embed.serving.local import load_image_embedder, model_fingerprint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedded(catalogue, tmp_path_factory):
    """Parquet shards of all images of the catalogue's manifest."""
    output = tmp_path_factory.mktemp("bulk") / "embeddings"
    model = str(catalogue.saved_model)
    config = BulkConfig(
        source=SourceConfig(
            MANIFEST, str(catalogue.manifest), shard_images=30, settings=ImageSettings()
        ),
        model_fingerprint=model_fingerprint(model),
        output=str(output),
        batch_size=8,
    )
    load = functools.partial(load_image_embedder, model)
    bulk_embed(config, functools.partial(run_here, load=load, threads=1))
    return output


@pytest.fixture(scope="module")
def index(catalogue, embedded, new_index):
    with open_index(new_index()) as opened:
        source = IndexSource(catalogue.saved_model, catalogue.dataset.directory, bulk=embedded)
        fill_index(opened, source, IndexSettings())
        yield opened


@pytest.fixture(scope="module")
def client(catalogue, index):
    sources = SearchSources(catalogue.saved_model, None, images=catalogue.manifest.parent)
    with TestClient(make_service(index, sources, Limits(rate=0))) as opened:
        yield opened


def test_the_index_contains_the_gallery_of_the_manifest_and_finds_it(catalogue, index, client):
    gallery = catalogue.dataset.select(roles=GALLERY)
    assert index.current().images == len(gallery)
    assert index.current().verticals == ("bag", "dress")
    name = catalogue.dataset.column("image")[gallery[2]]
    image = (catalogue.manifest.parent / name).read_bytes()

    answer = client.post("/api/search", files={"file": ("a.png", image, "image/png")})

    hit = answer.json()["hits"][0]
    assert hit["image"] == name
    assert hit["distance"] < 1e-3


def test_images_are_served_only_from_below_the_root(catalogue, index, client, tmp_path, new_index):
    name = catalogue.dataset.column("image")[0]
    version = index.current()
    key = next(k for k in index.keys(version) if index.find(version, [k])[0][0].image == name)
    served = Image.open(io.BytesIO(client.get(f"/images/{key}").content))
    assert served.format == "JPEG"
    assert served.size == Image.open(catalogue.manifest.parent / name).size

    outside = tmp_path / "outside.png"
    Image.new("RGB", (9, 9)).save(outside)
    vector = [1.0, *[0.0] * (version.dim - 1)]
    table = pa.table(
        {
            "image": [str(outside), f"../../{outside.name}", "missing.png"],
            "item_id": ["1", "2", "3"],
            "vertical": ["bag"] * 3,
            "embedding": pa.array([vector] * 3, pa.list_(pa.float32(), version.dim)),
        }
    )
    pq.write_table(table, tmp_path / "odd.parquet")
    with open_index(new_index()) as other:
        source = IndexSource(
            catalogue.saved_model, catalogue.dataset.directory, bulk=tmp_path / "odd.parquet"
        )
        filled = fill_index(other, source, IndexSettings()).version
        sources = SearchSources(catalogue.saved_model, None, images=catalogue.manifest.parent)
        with TestClient(make_service(other, sources, Limits(rate=0))) as client:
            found = [client.get(f"/images/{key}").status_code for key in other.keys(filled)]
    assert found == [404] * 3


def test_a_plan_reports_what_filling_then_changes(catalogue, embedded, new_index):
    first = min(embedded.glob("*.parquet"))
    everything, few = (
        IndexSource(catalogue.saved_model, catalogue.dataset.directory, bulk=bulk)
        for bulk in (embedded, first)
    )
    n = sum(role != "query" for role in pq.read_table(first)["role"].to_pylist())
    fresh = plan_index(None, few)
    assert (fresh.images, fresh.new, fresh.removed, fresh.answers) == (n, n, 0, False)
    with open_index(new_index()) as index:
        fill_index(index, few, IndexSettings())
        more = plan_index(index, everything)
        assert (more.images - more.new, more.removed) == (n, 0) and more.new > 0
        assert more.answers and more.model == index.current().model
        done = fill_index(index, everything, IndexSettings())
        assert (done.upserted, done.deleted) == (more.images, more.removed)
        kept = plan_index(index, few)
        assert (kept.images, kept.new, kept.removed) == (more.images, 0, 0)
        assert fill_index(index, few, IndexSettings()).version.images == more.images
        less = plan_index(index, few, replace_all=True)
        assert (less.images, less.new, less.removed) == (n, 0, more.new)
        done = fill_index(index, few, IndexSettings(), replace_all=True)
        assert (done.upserted, done.deleted) == (less.images, less.removed)


def test_a_gallery_keeps_its_own_and_the_added_images(catalogue, embedded, tmp_path, new_index):
    gallery = IndexSource(catalogue.saved_model, catalogue.dataset.directory)
    table = pq.read_table(min(embedded.glob("*.parquet"))).slice(0, 1)
    image = table.schema.get_field_index("image")
    added = tmp_path / "added.parquet"
    pq.write_table(table.set_column(image, "image", pa.array(["added.png"])), added)
    Image.new("RGB", (9, 9)).save(tmp_path / "added.png")
    bulk = dataclasses.replace(gallery, bulk=added)
    with open_index(new_index()) as index:
        count = fill_index(index, gallery, IndexSettings()).version.images
        more = fill_index(index, bulk, IndexSettings())
        assert (more.upserted, more.deleted, more.version.images) == (1, 0, count + 1)
        again = fill_index(index, gallery, IndexSettings())
        assert (again.deleted, again.version.images) == (0, count + 1)

        sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory, tmp_path)
        with TestClient(make_service(index, sources, Limits(rate=0))) as client:
            keys = list(index.keys(index.current()))
            assert {client.get(f"/images/{key}").status_code for key in keys} == {200}

        few = dataclasses.replace(gallery, splits=("val",))
        for change in (plan_index, functools.partial(fill_index, settings=IndexSettings())):
            with pytest.raises(UserError, match=rf"of {count + 1} images .* with --replace_all"):
                change(index, few)
        assert index.current().images == count + 1
        whole = fill_index(index, few, IndexSettings(), replace_all=True)
        assert whole.version.images == whole.upserted < count


def test_added_removed_and_remaining_images_are_counted(catalogue, tmp_path):
    table = pa.table(
        {
            "image": ["a.jpg", "b.jpg", "c.jpg"],
            "item_id": ["1", "1", "2"],
            "vertical": ["bag"] * 3,
            "embedding": pa.array([[0.25] * 16] * 3, pa.list_(pa.float32(), 16)),
        }
    )
    pq.write_table(table, tmp_path / "all.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "delta.parquet")
    for arguments, expected in (
        (["--bulk=all.parquet"], "3 images in 1 vertical; 3 written, 0 removed, 0 without"),
        (["--delete=a.jpg", "--delete_item=2"], "edition 1, 1 image; --roll_back_to=0 undoes this"),
        # Another model answers in the meantime; the changes of the first one remain.
        (["--switch_only"], "answers with 1 image, edition 1"),
        (["--bulk=delta.parquet", "--replace_all"], "1 image in 1 vertical; 1 written, 1 rem"),
    ):
        if arguments == ["--switch_only"]:
            with open_index(str(tmp_path / "index.db")) as index:
                first = index.current()
                build_index(index, Version("f" * 64, 4), iter([]))
        given = ["--run_dir=.", f"--saved_model={catalogue.saved_model}", *arguments]
        done = run_tool("build_index.py", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert expected in done.stdout
        if arguments == ["--switch_only"]:
            with open_index(str(tmp_path / "index.db")) as index:
                assert index.current() == first


def test_a_dry_run_writes_no_file(catalogue, embedded, tmp_path):
    given = [f"--saved_model={catalogue.saved_model}", f"--bulk={embedded}"]
    done = run_tool("build_index.py", *given, f"--run_dir={tmp_path}", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'index.db'}, would be created" in done.stdout
    assert "nothing was written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_searching_without_an_index_does_not_create_one(tmp_path):
    run = tmp_path / "misspelt"
    done = run_tool("search.py", f"--run_dir={run}", "--image=street.jpg")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"search.py: {run / 'index.db'}: no index; build one with tools/build_index.py"
    )
    assert not run.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["image", "item_id", "embedding"], "odd.parquet: no column 'vertical'"),
        (["image", "item_id", "vertical"], "odd.parquet: no column 'embedding'"),
    ],
)
def test_a_file_without_a_column_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table({name: ["a"] for name in columns}), tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=message):
        list(bulk_rows(tmp_path))


def test_files_other_than_parquet_are_refused(tmp_path):
    (tmp_path / "odd.parquet").write_bytes(b"PAR1 or not")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"odd\.parquet: cannot be read as Parquet"):
        list(bulk_rows(tmp_path / "odd.parquet"))
    with pytest.raises(UserError, match=r"no \*\.parquet files found"):
        list(bulk_rows(empty))


def test_embeddings_of_another_model_are_refused(catalogue, tmp_path, new_index):
    table = pa.table(
        {
            "image": ["a.png"],
            "item_id": ["1"],
            "vertical": ["bag"],
            "embedding": pa.array([np.ones(7, np.float32)], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "odd.parquet")
    source = IndexSource(
        catalogue.saved_model, catalogue.dataset.directory, bulk=tmp_path / "odd.parquet"
    )
    with open_index(new_index()) as index:
        with pytest.raises(UserError, match="16"):
            fill_index(index, source, IndexSettings())
        assert index.current() is None


def changed(embedded, directory, changes):
    """Copies bulk embeddings, and changes their summary."""
    other = shutil.copytree(embedded, directory / "other")
    summary = json.loads((other / "embed.json").read_text())
    (other / "embed.json").write_text(json.dumps({**summary, **changes}))
    return other


@pytest.mark.parametrize("one_file", [True, False])
def test_bulk_embeddings_that_name_another_model_are_refused(
    catalogue, embedded, tmp_path, new_index, one_file
):
    message = "names another model than .*; distances .* are meaningless"
    other = changed(embedded, tmp_path, {"model": "0" * 64})
    bulk = next(other.glob("*.parquet")) if one_file else other
    source = IndexSource(catalogue.saved_model, catalogue.dataset.directory, bulk=bulk)
    with open_index(new_index()) as index:
        with pytest.raises(UserError, match=message):
            fill_index(index, source, IndexSettings())
        for planned in (None, index):
            with pytest.raises(UserError, match=message):
                plan_index(planned, source)
        assert index.current() is None


def test_all_images_of_an_index_and_its_queries_are_prepared_in_the_same_way(
    catalogue, embedded, tmp_path, new_index
):
    other = changed(embedded, tmp_path, {"settings": {"crop_margin": 0.3, "max_side": 64}})
    usual, wide = (
        IndexSource(catalogue.saved_model, catalogue.dataset.directory, bulk=bulk)
        for bulk in (embedded, other)
    )
    gallery = dataclasses.replace(usual, bulk=None)
    message = r"were prepared with --{}={}, those of the index with {}; run tools/{} .*replace_all"
    with open_index(new_index()) as index:
        for first, second, refused in (
            (wide, usual, ("max_side", 256, 64, "embed.py")),
            (usual, wide, ("max_side", 64, 256, "embed.py")),
        ):
            filled = fill_index(index, first, IndexSettings(), replace_all=True).version
            margin = 0.3 if first is wide else 0.1
            assert filled.image_settings.crop_margin == margin
            sources = SearchSources(catalogue.saved_model, None)
            searcher, _ = open_searcher(index, sources, max_pixels=999)
            assert searcher.image_settings == ImageSettings(refused[2], margin, max_pixels=999)
            with pytest.raises(UserError, match=message.format(*refused)):
                fill_index(index, second, IndexSettings())
            with pytest.raises(UserError, match=message.format(*refused)):
                plan_index(index, second)
            # A running service follows the index.
            fill_index(index, second, IndexSettings(), replace_all=True)
            searcher.refresh()
            assert searcher.image_settings.max_side == refused[1]
        # The images of the index that are not in the gallery would stay.
        keys = [*index.keys(filled)]
        extra = dataclasses.replace(index.find(filled, keys[:1])[0][0], key="f" * 32)
        index.change(filled, [extra], index.find(filled, keys[:1])[0][1][np.newaxis], [])
        for fill in (plan_index, functools.partial(fill_index, settings=IndexSettings())):
            with pytest.raises(
                UserError, match=r"--max_side=256, those .* tools/prepare_dataset\.py"
            ):
                fill(index, gallery)


def test_the_garments_of_a_detector_are_refused(tmp_path):
    columns = {name: ["a.jpg"] for name in ("image", "item_id", "vertical")}
    vectors = pa.array([np.ones(4, np.float32)], pa.list_(pa.float32()))
    table = pa.table({**columns, "embedding": vectors, "garment_box": vectors})
    pq.write_table(table, tmp_path / "one.parquet")
    with pytest.raises(
        UserError, match=r"one\.parquet: contains the garments that a detector found"
    ):
        next(bulk_rows(tmp_path / "one.parquet"))


def test_queries_and_unlabelled_images_are_left_out(tmp_path):
    rows = [
        ("a.jpg", " 7 ", "bag", "", ""), ("b.jpg", "7", "bag ", "query", "test"),
        ("c.jpg", "", "bag", "both", "unlabelled"), ("d.jpg", "7", "bag ", "gallery", "test"),
    ]  # fmt: skip
    names = ("image", "item_id", "vertical", "role", "split")
    columns = dict(zip(names, map(list, zip(*rows))))
    vectors = pa.array([np.ones(4, np.float32)] * 4, pa.list_(pa.float32()))
    pq.write_table(pa.table({**columns, "embedding": vectors}), tmp_path / "one.parquet")
    ((images, embeddings),) = bulk_rows(tmp_path / "one.parquet")
    assert [(one.image, one.item, one.vertical) for one in images] == [
        ("a.jpg", "7", "bag"), ("d.jpg", "7", "bag"),
    ]  # fmt: skip
    assert embeddings.shape == (2, 4)
