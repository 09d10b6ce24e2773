import functools
import io
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from tqdm import tqdm

from apparel_embed.common import locations
from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import PictureSettings
from apparel_embed.inference import bulk_beam
from apparel_embed.inference.bulk import bulk_embed, run_here
from apparel_embed.inference.bulk_beam import BeamConfig, run_on_beam
from apparel_embed.inference.bulk_shard import BulkConfig, shard_name
from apparel_embed.inference.bulk_sources import SourceConfig
from apparel_embed.models.embedding import ModelConfig, build_embedding_model, save_embedding_model
from apparel_embed.serving.local import load_picture_embedder

pytestmark = pytest.mark.slow

pytest.importorskip("apache_beam")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    config = ModelConfig(image_size=24, embedding_dim=8)
    save_embedding_model(directory, build_embedding_model(config), config)
    return str(directory)


def configure(output, kind, location):
    source = SourceConfig(kind, str(location), PictureSettings(), shard_pictures=20)
    return BulkConfig(source, model_fingerprint="model", output=str(output), batch_size=8)


def on_beam(model, **changed):
    return functools.partial(
        run_on_beam,
        load=functools.partial(load_picture_embedder, model),
        beam_config=BeamConfig(threads=2, **changed),
    )


def here(model):
    load = functools.partial(load_picture_embedder, model)
    return functools.partial(run_here, load=load, processes=1)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def local(tiny_prepared, model, tmp_path_factory):
    """What this process makes of the prepared dataset."""
    output = tmp_path_factory.mktemp("local") / "out"
    bulk_embed(configure(output, "prepared", tiny_prepared.directory), here(model))
    return output


def test_who_watches_sees_how_many_shards_are_finished(tmp_path, monkeypatch):
    config = configure(tmp_path / "out", "prepared", "nowhere")
    seen = threading.Event()

    class Bar(tqdm):
        def update(self, n=1):
            super().update(n)
            if self.n == 1:
                seen.set()

    def bar(total, **_):
        return Bar(total=total, file=io.StringIO())

    monkeypatch.setattr(bulk_beam, "progress_bar", bar)
    monkeypatch.setattr(bulk_beam, "_SECONDS_BETWEEN_LOOKS", 0.001)
    names = [shard_name(shard, 3) for shard in range(3)]
    with bulk_beam.watched(config, names[1:]):
        (tmp_path / "out.partial").mkdir()
        for name in names[:2]:
            (tmp_path / "out.partial" / name).touch()
        assert seen.wait(60)


def test_beam_makes_the_same_bytes_and_goes_on_where_this_process_was(
    local, tiny_prepared, model, tmp_path
):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)

    def only_the_first(config, todo, shards):
        here(model)(config, todo[:1], shards)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk_embed(config, only_the_first)
    first = tmp_path / "out.partial" / "embeddings-00000-of-00004.parquet"
    written = first.stat().st_mtime_ns
    bulk_embed(config, on_beam(model))
    assert contents(tmp_path / "out") == contents(local)
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == written


def test_pictures_and_result_may_lie_in_a_store(tiny_prepared, model, local, tmp_path, monkeypatch):
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(locations, "_connect", lambda root: (system, root.partition("://")[2]))
    source = tiny_prepared.directory.parent
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    lines = (source / "manifest.csv").read_text().splitlines()
    (bucket / "manifest.csv").write_text("\n".join([*lines, "none.png,x,bags,train"]))
    for image in tiny_prepared.column("image"):
        (bucket / image).write_bytes((source / image).read_bytes())
    config = configure("shop://bucket/out", "manifest", "shop://bucket/manifest.csv")
    summary = bulk_embed(config, on_beam(model))
    assert bulk_embed(config, on_beam(model)) == summary
    assert (bucket / "out" / "rejects.csv").read_text() == "image,reason\nnone.png,no such file\n"
    names = [shard["file"] for shard in summary["shards"]]
    assert sorted(contents(bucket / "out")) == sorted(["embed.json", "rejects.csv", *names])
    for name in names:
        ours = pq.read_table(bucket / "out" / name)["embedding"].to_pylist()
        theirs = pq.read_table(local / name)["embedding"].to_pylist()
        np.testing.assert_array_equal(ours, theirs)


def test_what_a_worker_has_to_say_comes_in_one_line(tiny_prepared, tmp_path):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    with pytest.raises(UserError) as error:
        bulk_embed(config, on_beam(str(tmp_path / "nowhere")))
    assert str(error.value).startswith(f"--model={tmp_path / 'nowhere'}: no such directory")
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_runner_is_told(tiny_prepared, model, tmp_path):
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    with pytest.raises(UserError, match=r"--runner: .*NoRunner.*DataflowRunner"):
        bulk_embed(config, on_beam(model, runner="NoRunner"))


def test_without_beam_the_error_says_how_to_do_without(tiny_prepared, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    config = configure(tmp_path / "out", "prepared", tiny_prepared.directory)
    with pytest.raises(UserError, match=r"Beam is not installed: pip install .*--runner=local"):
        bulk_embed(config, on_beam(model))
