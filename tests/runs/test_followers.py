"""What a process does with the stages of a run whose chief is another one."""

import json

import pytest

from apparel_embed.common import cluster
from apparel_embed.common.errors import UserError
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import only_run, run_stage

FLAGS, INPUTS = {"steps": 1}, {"data": "abc"}


@pytest.fixture
def be(monkeypatch):
    """Makes this process one of two, by its number."""

    def become(index):
        named = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv(cluster.VARIABLE, json.dumps(named))

    return become


@pytest.fixture
def chief_later(be, monkeypatch):
    """Lets the chief do something while this process, which is the other one, waits."""
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


def test_a_finished_stage_is_not_waited_for(tmp_path, be):
    be(0)
    make(tmp_path / "one")
    be(1)
    assert make(tmp_path / "one", never, on_all_workers=True).result == {"answer": 42}


def test_common_work_is_done_aside_and_nothing_of_it_stays(tmp_path, chief_later):
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


def test_common_work_goes_on_from_what_the_chief_goes_on_from(tmp_path, be, chief_later):
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


def test_what_the_chief_copies_is_no_common_work(tmp_path, be, chief_later):
    be(0)
    make(tmp_path / "other")
    chief_later(lambda: make(tmp_path / "one", never, reuse_from=[tmp_path / "other"]))
    stage = make(tmp_path / "one", never, on_all_workers=True, reuse_from=[tmp_path / "other"])
    assert stage.result == {"answer": 42}


def test_a_stage_that_was_only_to_be_renamed_is_no_common_work(tmp_path, be, chief_later):
    be(0)
    make(tmp_path / "one")
    # As by a chief that was killed just before it gave the finished stage its name.
    (tmp_path / "one").rename(tmp_path / "one.partial")
    chief_later(lambda: make(tmp_path / "one", never))
    assert make(tmp_path / "one", never, on_all_workers=True).result == {"answer": 42}


def test_a_stage_made_of_something_else_is_refused_by_all(tmp_path, be):
    be(0)
    make(tmp_path / "one")
    be(1)
    with pytest.raises(UserError, match="was made with steps=1, now it is 2"):
        run_stage(StageSpec(tmp_path / "one", flags={"steps": 2}, inputs=INPUTS, work=never))


def test_the_chief_holds_the_run_for_all(tmp_path, be):
    be(0)
    with only_run(tmp_path / "run"):
        before = files(tmp_path / "run")
        be(1)
        with only_run(tmp_path / "run"):
            assert files(tmp_path / "run") == before
        be(0)
