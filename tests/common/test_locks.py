import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import lock_path, only_writer, refuse_if_held

HOLDER = """
import sys, time
from pathlib import Path
from apparel_embed.common.locks import only_writer

with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock on `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_at_once_with_host_and_process_of_the_first(tmp_path, holder):
    refusal = rf"run: process {holder.pid} on host {socket.gethostname()} \(-c, since 20.*\)"
    with pytest.raises(UserError, match=refusal), only_writer(tmp_path / "run"):
        pass
    with pytest.raises(UserError, match=refusal):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")


def test_a_killed_holder_does_not_block_the_next(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_path(tmp_path / "run").is_file()

    refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")
    with only_writer(tmp_path / "run"):
        record = json.loads(lock_path(tmp_path / "run").read_text())
        assert (record["host"], record["process"]) == (socket.gethostname(), os.getpid())

    assert list(tmp_path.iterdir()) == []


def test_a_process_may_check_its_own_lock_but_not_take_it_twice(tmp_path):
    with only_writer(tmp_path / "run"):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            only_writer(tmp_path / "run").__enter__()
    refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")


def test_a_lock_file_removed_between_opening_and_locking_is_created_again(tmp_path, monkeypatch):
    path = lock_path(tmp_path / "run")
    lock = fcntl.flock
    removed = []

    def remove_and_lock(handle, how):
        if not removed:
            removed.append(path.stat().st_ino)
            path.unlink()
        return lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with only_writer(tmp_path / "run"):
        monkeypatch.undo()
        # The lock is on the file that others will open.
        with pytest.raises(UserError, match="is writing"):
            only_writer(tmp_path / "run").__enter__()
    assert removed


def test_a_lock_without_a_holder_record_is_refused_too(tmp_path):
    path = lock_path(tmp_path / "run")
    for content in ("", "[]", "{"):
        path.write_text(content)
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(UserError, match="run: another process is writing"):
                only_writer(tmp_path / "run").__enter__()


def test_without_locks_on_the_file_system_a_warning_is_logged(tmp_path, monkeypatch, caplog):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_writer(tmp_path / "run"):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")

    assert "no locks on this file system (No locks available)" in caplog.text
