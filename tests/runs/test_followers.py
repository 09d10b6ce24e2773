"""Stages of a run in a process that is not the chief."""

import json

import pytest

from apparel_embed.common import cluster
from apparel_embed.common.errors import UserError
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import only_run, run_stage

FLAGS, INPUTS = {"steps": 1}, {"data": "abc"}


@pytest.fixture
def be(monkeypatch):
    """Returns a function that makes this process one of two, given its index."""

    def become(index):
        named = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv(cluster.VARIABLE, json.dumps(named))

    return become


@pytest.fixture
def chief_later(be, monkeypatch):
    """Returns a function that lets the chief act while this process, the other one, waits."""
    waited = []

    def arrange(action):
        def sleep(seconds):
            if not waited:
                waited.append(seconds)
                be(0)
                action()
                be(1)

        monkeypatch.setattr(cluster.time, "sleep", sleep)
        be(1)
        return waited

    return arrange


def make(directory, work=lambda directory: {"answer": 42}, **more):
    return run_stage(StageSpec(directory, flags=FLAGS, inputs=INPUTS, work=work, **more))


def never(directory):
    raise AssertionError("this is the chief's work")


def files(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_process_that_is_not_the_chief_waits_for_the_stage(tmp_path, chief_later):
    waited = chief_later(lambda: make(tmp_path / "one"))
    stage = make(tmp_path / "one", never)

    assert waited
    assert stage.result == {"answer": 42}


def test_no_process_waits_for_a_finished_stage(tmp_path, be):
    be(0)
    make(tmp_path / "one")
    be(1)
    assert make(tmp_path / "one", never, on_all_workers=True).result == {"answer": 42}


def test_shared_work_is_done_in_a_temporary_directory_that_is_removed(tmp_path, chief_later):
    seen = []

    def work(directory):
        seen.append(directory)
        (directory / "model").write_text("mine")
        return {"answer": 0}

    chief_later(lambda: make(tmp_path / "one"))
    stage = make(tmp_path / "one", work, on_all_workers=True)

    assert stage.result == {"answer": 42}
    assert tmp_path not in seen[0].parents
    assert not seen[0].exists()
    assert files(tmp_path) == ["one", "one/stage.json"]


def test_shared_work_resumes_from_the_chiefs_checkpoint(tmp_path, be, chief_later):
    def interrupted(directory):
        (directory / "checkpoint").write_text("step 7")
        raise KeyboardInterrupt

    be(0)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "one", interrupted)
    found = []
    chief_later(lambda: make(tmp_path / "one"))
    make(
        tmp_path / "one",
        lambda directory: found.append((directory / "checkpoint").read_text()) or {},
        on_all_workers=True,
    )

    assert found == ["step 7"]


def test_a_stage_that_the_chief_copies_is_not_shared_work(tmp_path, be, chief_later):
    be(0)
    make(tmp_path / "other")
    chief_later(lambda: make(tmp_path / "one", never, reuse_from=[tmp_path / "other"]))
    stage = make(tmp_path / "one", never, on_all_workers=True, reuse_from=[tmp_path / "other"])
    assert stage.result == {"answer": 42}


def test_a_complete_stage_that_was_not_yet_renamed_is_not_shared_work(tmp_path, be, chief_later):
    be(0)
    make(tmp_path / "one")
    # As if the chief had been killed just before it renamed the finished stage.
    (tmp_path / "one").rename(tmp_path / "one.partial")
    chief_later(lambda: make(tmp_path / "one", never))
    assert make(tmp_path / "one", never, on_all_workers=True).result == {"answer": 42}


def test_all_processes_refuse_a_stage_that_was_made_with_other_flags(tmp_path, be):
    be(0)
    make(tmp_path / "one")
    be(1)
    with pytest.raises(UserError, match="was made with steps=1, now it is 2"):
        run_stage(StageSpec(tmp_path / "one", flags={"steps": 2}, inputs=INPUTS, work=never))


def test_the_chief_locks_the_run_for_all_processes(tmp_path, be):
    be(0)
    with only_run(tmp_path / "run"):
        before = files(tmp_path / "run")
        be(1)
        with only_run(tmp_path / "run"):
            assert files(tmp_path / "run") == before
        be(0)
