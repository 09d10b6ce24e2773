import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preparing import TOOL, contents, make_images, make_small

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import only_writer
from apparel_embed.data import image_pool
from apparel_embed.data import prepare as module
from apparel_embed.data.prepare import PrepareConfig, plan_prepare, prepare
from apparel_embed.data.prepared import PreparedDataset


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.mark.slow
def test_a_killed_call_that_is_repeated_writes_the_same_bytes(small, tmp_path):
    output, partial = tmp_path / "killed", tmp_path / "killed.partial"
    command = [sys.executable, TOOL, f"--manifest={small}", f"--output={output}"]
    command += ["--shard_records=2", "--processes=1", "--val_fraction=0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Names of files still being written begin with a dot.
    while not list(partial.glob("progress/[0-9]*.json")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not output.exists()
    with pytest.raises(UserError, match="still partial"):
        PreparedDataset.open(output)
    first = partial / "records-00000-of-00010.array_record"
    before = first.stat().st_mtime_ns, first.stat().st_ino
    (partial / ".records-00001.left.array_record").write_bytes(b"half")
    prepare(PrepareConfig(small, output, shard_records=2), processes=2)
    kept = output / first.name
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert contents(output) == contents(small.parent / "whole")
    assert not partial.exists()


def test_a_failure_between_shards_keeps_the_finished_ones(small, tmp_path, monkeypatch):
    write_shard = module.write_shard
    written = []

    def fail_at_third(path, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_shard(path, *arguments)

    config = PrepareConfig(small, tmp_path / "out", shard_records=2)
    monkeypatch.setattr(module, "write_shard", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, 1)
    for begun in (lambda other: prepare(other, 1), plan_prepare):
        with pytest.raises(UserError, match=r"out\.partial was made .*side was 256, now it is 9"):
            begun(PrepareConfig(small, tmp_path / "out", max_side=9, shard_records=2))
    before = sorted((tmp_path / "out.partial").rglob("*"))
    plan = plan_prepare(config)
    assert (plan.state, plan.todo, len(plan.dataset)) == ("to be resumed", 16, 20)
    assert sorted((tmp_path / "out.partial").rglob("*")) == before
    monkeypatch.setattr(
        module,
        "write_shard",
        lambda path, *rest: written.append(path.name) or write_shard(path, *rest),
    )
    prepare(config, 1)
    assert written == [f"records-{i:05d}-of-00010.array_record" for i in range(10)]
    assert contents(tmp_path / "out") == contents(small.parent / "whole")
    assert (plan_prepare(config).state, plan_prepare(config).todo) == ("finished", 0)


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def is_running(pid):
    """Returns whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)]
)
def test_workers_end_when_their_parent_is_killed_or_stopped(tmp_path, number, status):
    manifest = make_images(tmp_path, 4, side=200)
    header, *rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([header, *rows * 200]) + "\n")
    command = [sys.executable, TOOL, f"--manifest={manifest}", f"--output={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [*command, "--processes=2", "--shard_records=16"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "out.partial"
    while not list(partial.glob("progress/[0-9]*.json")):
        assert process.poll() is None
        time.sleep(0.001)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    _, log = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in log
    for _ in range(1000):
        if not any(is_running(worker) for worker in workers):
            break
        time.sleep(0.01)
    else:
        pytest.fail("workers outlive their parent")
    assert list(partial.glob("progress/[0-9]*.json"))
    if number == signal.SIGTERM:
        assert log.endswith("stopped by SIGTERM; the same command resumes it\n")
        # An orderly stop leaves no partial files.
        assert [path.name for path in partial.rglob(".*")] == []


def test_the_death_of_a_worker_is_an_error_with_a_remedy(small, tmp_path, monkeypatch):
    monkeypatch.setattr(image_pool, "start_worker", os.abort)
    with pytest.raises(UserError, match=r"a worker process died.*fewer --processes"):
        prepare(PrepareConfig(small, tmp_path / "out"), 1)
    monkeypatch.undo()
    assert len(prepare(PrepareConfig(small, tmp_path / "out"), 1)) == 18


@pytest.mark.slow
def test_a_full_disk_is_an_error_with_a_remedy(small, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, signal, sys\n"
        "from apparel_embed.data.prepare import PrepareConfig, prepare\n"
        "from apparel_embed.common.errors import UserError\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        prepare(PrepareConfig(*sys.argv[1:]), 1)\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    command = [sys.executable, script, small, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "array_record: cannot be written (" in done.stdout
    assert "free some space and run the same command again" in done.stdout
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["plan.json"]


def test_a_second_writer_is_refused_with_the_process_id_of_the_first(small, tmp_path):
    refusal = rf"out: process {os.getpid()} on host .* is writing"
    with only_writer(tmp_path / "out"), pytest.raises(UserError, match=refusal):
        prepare(PrepareConfig(small, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_complete_directory_that_was_not_renamed_is_finished(small, tmp_path):
    prepare(PrepareConfig(small, tmp_path / "out", shard_records=2), 1)
    os.replace(tmp_path / "out", tmp_path / "out.partial")
    with pytest.raises(UserError, match=r"out\.partial was made with other"):
        prepare(PrepareConfig(small, tmp_path / "out", shard_records=3), 1)
    prepare(PrepareConfig(small, tmp_path / "out", shard_records=2), 1)
    assert contents(tmp_path / "out") == contents(small.parent / "whole")
