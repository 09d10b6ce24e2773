import contextlib
import os
import subprocess

import pytest
from disks import own_disk
from tiny_stage import make

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import lock_path, only_writer
from apparel_embed.store.runs import only_run


def test_a_stage_that_another_process_is_making_is_refused(tmp_path):
    with (
        only_writer(tmp_path / "one"),
        pytest.raises(UserError, match=f"one: process {os.getpid()}"),
    ):
        make(tmp_path / "one")
    assert make(tmp_path / "one").result == {"answer": 42}


def test_a_stage_finished_by_another_process_in_between_is_not_made_again(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def late(directory):
        with only_writer(directory):
            monkeypatch.undo()
        make(directory)
        yield

    monkeypatch.setattr("apparel_embed.store.runs.only_writer", late)
    assert make(tmp_path / "one", lambda directory: {"answer": 43}).result == {"answer": 42}


def test_the_holder_of_a_run_makes_its_stages_and_a_second_is_refused(tmp_path):
    with only_run(tmp_path):
        make(tmp_path / "one")
        with pytest.raises(UserError, match=f"{tmp_path}: process {os.getpid()} on host"):
            only_run(tmp_path).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_run_that_fails_at_once_leaves_no_directory(tmp_path):
    with pytest.raises(UserError, match="wrong flag"), only_run(tmp_path / "run"):
        raise UserError("wrong flag")
    assert list(tmp_path.iterdir()) == []


def test_single_stages_and_whole_runs_exclude_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with only_run(tmp_path):
        monkeypatch.undo()
        with pytest.raises(UserError, match=f"{tmp_path}: process 7 on host"):
            make(tmp_path / "one")

    monkeypatch.setattr(os, "getpid", lambda: 7)
    with only_writer(tmp_path / "one"):
        monkeypatch.undo()
        with pytest.raises(UserError, match=f"{tmp_path}/one: process 7 on host"):
            only_run(tmp_path).__enter__()
        # Different stages do not exclude each other.
        make(tmp_path / "two")


@pytest.mark.parametrize(
    "error", [OSError(28, os.strerror(28)), RuntimeError(f"h5py: errno = 28, {os.strerror(28)}")]
)
def test_a_full_disk_is_an_error_and_finished_work_stays(tmp_path, error):
    def work(directory):
        (directory / "half.txt").write_text("half")
        raise error

    with pytest.raises(UserError, match=r"one: No space left on device; .*free some space"):
        make(tmp_path / "one", work)

    assert (tmp_path / "one.partial" / "half.txt").read_text() == "half"
    assert make(tmp_path / "one").result == {"answer": 42}
    assert not lock_path(tmp_path / "one").exists()


def test_a_read_only_run_can_be_read_and_is_not_written_to(tmp_path):
    with own_disk(tmp_path / "disk", "size=1m"):
        disk = tmp_path / "disk"
        make(disk / "one")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

        assert make(disk / "one").skipped
        for call in (lambda: make(disk / "two"), only_run(disk).__enter__):
            with pytest.raises(UserError, match=r"Read-only file system; .*choose a writable"):
                call()
        assert [path.name for path in disk.iterdir()] == ["one"]
