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
    """Another process, which holds the lock of `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_at_once_and_told_host_and_process_of_the_first(tmp_path, holder):
    said = rf"run: process {holder.pid} on host {socket.gethostname()} \(-c, since 20.*\)"
    with pytest.raises(UserError, match=said), only_writer(tmp_path / "run"):
        pass
    with pytest.raises(UserError, match=said):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")


def test_a_killed_holder_leaves_nothing_that_bars_the_next(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_path(tmp_path / "run").is_file()

    refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")
    with only_writer(tmp_path / "run"):
        told = json.loads(lock_path(tmp_path / "run").read_text())
        assert (told["host"], told["process"]) == (socket.gethostname(), os.getpid())

    assert list(tmp_path.iterdir()) == []


def test_one_process_may_look_at_its_own_lock_but_not_take_it_twice(tmp_path):
    with only_writer(tmp_path / "run"):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            only_writer(tmp_path / "run").__enter__()
    refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")


def test_a_lock_file_that_goes_between_opening_and_locking_is_made_anew(tmp_path, monkeypatch):
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


def test_a_holder_that_has_not_told_its_name_yet_refuses_all_the_same(tmp_path):
    path = lock_path(tmp_path / "run")
    for content in ("", "[]", "{"):
        path.write_text(content)
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(UserError, match="run: another process is writing"):
                only_writer(tmp_path / "run").__enter__()


def test_where_a_file_system_has_no_locks_the_work_goes_on_and_a_warning_says_so(
    tmp_path, monkeypatch, caplog
):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_writer(tmp_path / "run"):
        refuse_if_held(lock_path(tmp_path / "run"), tmp_path / "run")

    assert "no locks on this file system (No locks available)" in caplog.text
