import contextlib
import functools
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_embedders import (
    CALLS,
    HOLD,
    HOLD_LOADS,
    LOADS,
    fail_to_load,
    load_colours,
    load_killers,
    noted,
)

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.inference import bulk_cluster
from apparel_embed.inference.bulk import bulk_embed, run_here
from apparel_embed.inference.bulk_cluster import run_on_cluster
from apparel_embed.inference.bulk_shard import BulkConfig
from apparel_embed.inference.bulk_sources import SourceConfig
from apparel_embed.models.embedding import ModelConfig, build_embedding_model, save_embedding_model
from apparel_embed.serving.local import load_image_embedder

distributed = pytest.importorskip("distributed")

ROOT = Path(__file__).parents[2]
IMAGES, AT_ONCE, BATCH = 64, 4, 2


@contextlib.contextmanager
def started(*arguments):
    """Runs a Dask command in its own process."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env={**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def started_scheduler(scratch):
    """Yields the address of a scheduler without workers."""
    file = scratch / "scheduler.json"
    options = ("--host=127.0.0.1", "--port=0", "--no-dashboard")
    with started("scheduler", f"--scheduler-file={file}", *options):
        # The file exists before it is written.
        wait_until(lambda: file.exists() and file.stat().st_size)
        yield json.loads(file.read_text())["address"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler, and two workers that are restarted when they are killed."""
    scratch = tmp_path_factory.mktemp("cluster")
    options = ("--nthreads=1", "--memory-limit=0", "--no-dashboard", "--nworkers=2")
    options = (*options, f"--local-directory={scratch}")
    with started_scheduler(scratch) as scheduler, started("worker", scheduler, *options):
        yield scheduler


def wait_until(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def workers(address):
    """Returns the process ids of two workers."""
    with distributed.Client(address) as client:
        client.wait_for_workers(2, timeout=120)
        return sorted(client.run(os.getpid).values())


def configure(output, prepared):
    source = SourceConfig("manifest", str(prepared), ImageSettings(), shard_images=AT_ONCE)
    return BulkConfig(source, model_fingerprint="colours", output=str(output), batch_size=BATCH)


def on_cluster(address, notes, load=load_colours):
    return functools.partial(
        run_on_cluster, load=functools.partial(load, notes), address=address, threads=1
    )


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def manifest(tiny_prepared, tmp_path_factory):
    """A manifest of 64 images, one of which is broken and one missing."""
    directory = tmp_path_factory.mktemp("images") / "data"
    shutil.copytree(tiny_prepared.directory.parent, directory)
    (directory / tiny_prepared.column("image")[17]).write_bytes(b"not an image")
    (directory / tiny_prepared.column("image")[40]).unlink()
    return directory / "manifest.csv"


@pytest.fixture(scope="module")
def here(manifest, tmp_path_factory):
    """The result of embedding them in this process."""
    output = tmp_path_factory.mktemp("here") / "out"
    load = functools.partial(load_colours, output.parent)
    bulk_embed(configure(output, manifest), functools.partial(run_here, load=load, threads=1))
    return contents(output)


class Embedding(threading.Thread):
    """Embeds on the cluster while a test does something else."""

    def __init__(self, config, run):
        super().__init__(daemon=True)
        self._config, self._run, self.error = config, run, None
        self.start()

    def run(self):
        try:
            bulk_embed(self._config, self._run)
        except UserError as error:
            self.error = str(error)

    def end(self):
        self.join(120)
        assert not self.is_alive()


def test_a_cluster_writes_the_same_bytes_and_loads_the_model_once_per_worker(
    address, manifest, here, tmp_path
):
    pids = workers(address)
    bulk_embed(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    assert contents(tmp_path / "out") == here
    # One image is broken, and one is missing.
    assert len(here["rejects.csv"].splitlines()) == 3
    assert sorted(noted(tmp_path / LOADS)) == pids
    assert set(noted(tmp_path / CALLS)) == set(pids)


def test_only_the_shard_of_a_killed_worker_is_repeated(address, manifest, here, tmp_path):
    workers(address)
    (tmp_path / HOLD).touch()
    embedding = Embedding(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    # Each worker is embedding both batches of a shard.
    wait_until(lambda: len(noted(tmp_path / CALLS)) == 4)
    os.kill(noted(tmp_path / CALLS)[0], signal.SIGKILL)
    (tmp_path / HOLD).unlink()
    embedding.end()
    assert not embedding.error
    assert contents(tmp_path / "out") == here
    assert len(noted(tmp_path / CALLS)) == IMAGES // BATCH + 2


def test_a_worker_killed_before_it_is_ready_is_not_waited_for(address, manifest, here, tmp_path):
    workers(address)
    (tmp_path / HOLD_LOADS).touch()
    embedding = Embedding(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    wait_until(lambda: len(noted(tmp_path / LOADS)) == 2)
    os.kill(noted(tmp_path / LOADS)[0], signal.SIGKILL)
    (tmp_path / HOLD_LOADS).unlink()
    embedding.end()
    assert not embedding.error
    assert contents(tmp_path / "out") == here


def test_the_next_driver_takes_over_the_workers_of_a_killed_one(address, manifest, here, tmp_path):
    workers(address)
    config, run = configure(tmp_path / "out", manifest), on_cluster(address, tmp_path)

    def only_three(config, todo, shards):
        load = functools.partial(load_colours, tmp_path)
        run_here(config, todo[:3], shards, load=load, threads=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk_embed(config, only_three)
    partial = tmp_path / "out.partial"
    finished = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.parquet")}
    (tmp_path / HOLD).touch()
    with driver(config, run) as process:
        wait_until(lambda: set(noted(tmp_path / CALLS)) >= set(workers(address)))
        process.kill()
    first = config.directory.recall("driver")
    embedding = Embedding(config, run)
    wait_until(lambda: config.directory.recall("driver") != first)
    (tmp_path / HOLD).unlink()
    embedding.end()
    assert not embedding.error
    assert contents(tmp_path / "out") == here
    assert len(finished) == 3
    for name, written in finished.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == written


@contextlib.contextmanager
def driver(config, run):
    """Embeds in a separate process."""
    code = (
        "import pickle, sys; from apparel_embed.inference.bulk import bulk_embed; "
        "bulk_embed(*pickle.load(sys.stdin.buffer))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        process.stdin.write(pickle.dumps((config, run)))
        process.stdin.close()
        yield process


def refused(config, run):
    """Returns the error, which must have one line, of a run that embeds nothing."""
    with pytest.raises(UserError) as error:
        bulk_embed(config, run)
    assert len(str(error.value).splitlines()) == 1
    assert not [*Path(f"{config.output}.partial").glob("embeddings-*")]
    return str(error.value)


def test_workers_that_do_not_see_the_output_or_the_images_are_reported(
    address, manifest, tmp_path, monkeypatch
):
    # Workers have another working directory.
    monkeypatch.chdir(tmp_path)
    run = on_cluster(address, tmp_path)
    found = refused(configure("out", manifest), run)
    assert re.search(r"worker tcp://127.0.0.1:\d+ on \S+: out.partial is not the directory", found)
    shutil.copy(manifest, "manifest.csv")
    found = refused(configure(tmp_path / "other", "manifest.csv"), run)
    assert re.search(r"worker tcp://\S+ on \S+: manifest.csv: no such manifest", found)


def test_a_worker_that_prepares_other_bytes_is_reported(address, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_cluster, "_sample", lambda *_: [b"of the driver"])
    found = refused(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    assert re.search(r"worker \S+ on \S+: dresses_0_0.png: prepared, it has different", found)


def test_a_worker_that_cannot_write_is_reported(address, manifest, tmp_path):
    pids = workers(address)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        found = refused(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (-1, -1))
    assert re.search(r"worker \S+ on \S+: .*worker-.*json: cannot be written \(.*File too", found)


def test_a_worker_that_cannot_load_the_model_is_reported(address, manifest, tmp_path):
    run = on_cluster(address, tmp_path, fail_to_load)
    found = refused(configure(tmp_path / "out", manifest), run)
    assert re.search(r"worker \S+ on \S+: RuntimeError\('.*two\\nlines'\)$", found)


def test_workers_with_other_versions_are_reported(address, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_cluster, "_versions", lambda: "Python 3.8, apparel_embed 0.0.1")
    found = refused(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    present = (
        f"Python {sys.version_info[0]}.{sys.version_info[1]}, apparel_embed {__version__}, tensor"
    )
    assert re.search(rf"worker \S+ on \S+: has {present}.*; expected .* Python 3.8, appa", found)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:9", "Timed out .*"),
        ("nowhere", "missing port number .*"),
    ],
)
def test_an_unreachable_cluster_is_an_error(address, message, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_cluster, "_SECONDS_TO_CONNECT", 0.2)
    found = refused(configure(tmp_path / "out", manifest), on_cluster(address, tmp_path))
    assert re.search(rf"--cluster={address}: cannot be reached \({message}\); expected", found)


def test_a_cluster_without_workers_is_an_error_at_the_start_and_later(
    manifest, tmp_path, monkeypatch
):
    monkeypatch.setattr(bulk_cluster, "_SECONDS_TO_FIND_WORKERS", 0.2)
    monkeypatch.setattr(bulk_cluster, "_SECONDS_BETWEEN_CHECKS", 0.1)
    config = configure(tmp_path / "out", manifest)
    with started_scheduler(tmp_path) as address:
        run = on_cluster(address, tmp_path)
        assert f"--cluster={address}: no worker within 0 s; start" in refused(config, run)
        (tmp_path / HOLD).touch()
        with started("worker", address, "--no-nanny", "--no-dashboard"):
            with distributed.Client(address) as client:
                client.wait_for_workers(1, timeout=120)
            embedding = Embedding(config, run)
            wait_until(lambda: noted(tmp_path / CALLS))
            os.kill(noted(tmp_path / CALLS)[0], signal.SIGKILL)
            embedding.end()
        assert (
            "--cluster: no worker for 0 s (see their logs); finished shards are kept"
            in embedding.error
        )


def test_a_worker_that_does_not_answer_is_reported(address, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk_cluster, "_SECONDS_TO_GET_READY", 0.2)
    monkeypatch.setattr(bulk_cluster, "_SECONDS_BETWEEN_CHECKS", 0.1)
    workers(address)
    with distributed.Client(address) as client:
        busy = client.map(time.sleep, [1, 1.1])
        run = on_cluster(address, tmp_path)
        found = refused(configure(tmp_path / "out", manifest), run)
        assert re.search(r"--cluster: tcp://\S+ and tcp://\S+ did not answer within 0 s", found)
        distributed.wait(busy)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_an_error(address, manifest, tmp_path):
    workers(address)
    run = on_cluster(address, tmp_path, load_killers)
    found = refused(configure(tmp_path / "out", manifest), run)
    assert "--cluster: the workers of one shard died repeatedly" in found


def test_the_error_about_missing_dask_says_what_to_install(manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    found = refused(configure(tmp_path / "out", manifest), on_cluster("tcp://a:1", tmp_path))
    assert "Dask is not installed; run pip install -c requirements.lock distributed" in found


@pytest.mark.slow
def test_the_command_line_tool_gives_the_same_result_with_a_cluster(address, manifest, tmp_path):
    model = tmp_path / "run" / "student"
    settings = ModelConfig(image_size=24, embedding_dim=8)
    save_embedding_model(model / "model", build_embedding_model(settings), settings)
    embed_binary = [
        *(sys.executable, str(ROOT / "tools/embed.py"), "--model=run/student"),
        *(f"--manifest={manifest}", "--output=there", f"--cluster={address}"),
        *(f"--shard_images={AT_ONCE}", f"--batch_size={BATCH}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(embed_binary, check=True, cwd=tmp_path, env=environment)
    load = functools.partial(load_image_embedder, str(model))
    bulk_embed(configure(tmp_path / "here", manifest), functools.partial(run_here, load=load))
    here, there = contents(tmp_path / "here"), contents(tmp_path / "there")
    # It names the model, which differs.
    here.pop("embed.json"), there.pop("embed.json")
    assert here == there and len(here) == IMAGES // AT_ONCE + 1
