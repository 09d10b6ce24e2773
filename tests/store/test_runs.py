import contextlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import tempfile

import pytest
from tiny_stage import make

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path
from apparel_embed.store.record import open_stage
from apparel_embed.store.runs import set_aside, stages_from


def write_and_count(counter):
    def work(directory):
        counter.append(directory.name)
        (directory / "result.txt").write_text("whole")
        return {"answer": len(counter)}

    return work


def test_a_stage_appears_whole_with_its_record(tmp_path):
    stage = make(tmp_path / "run" / "one", write_and_count([]))

    assert (stage.directory / "result.txt").read_text() == "whole"
    assert stage.result == {"answer": 1}
    assert not stage.skipped
    record = json.loads((tmp_path / "run/one/stage.json").read_text())
    assert record["stage"] == "one"
    assert record["flags"] == {"steps": 1}
    assert record["inputs"] == {"data": "abc"}
    assert record["fingerprint"] == stage.fingerprint
    assert record["versions"]["tensorflow"] == importlib.metadata.version("tensorflow")
    assert ("tf-keras" in record["versions"]) == (sys.version_info >= (3, 12))
    assert record["seconds"] >= 0
    assert not (tmp_path / "run/one.partial").exists()


def test_a_finished_stage_is_skipped(tmp_path):
    counter = []
    first = make(tmp_path / "one", write_and_count(counter))
    second = make(tmp_path / "one", write_and_count(counter))

    assert counter == ["one.partial"]
    assert second.skipped
    assert second.fingerprint == first.fingerprint
    assert second.result == first.result


def test_an_interrupted_stage_resumes_from_what_it_left(tmp_path):
    def interrupted(directory):
        (directory / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "one", interrupted)
    assert not (tmp_path / "one").exists()
    with pytest.raises(UserError, match="not finished"):
        open_stage(tmp_path / "one")

    stage = make(tmp_path / "one", lambda directory: {"left": (directory / "half.txt").read_text()})

    assert stage.result == {"left": "half"}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": {"steps": 2}}, "steps=1, now it is 2"),
        ({"inputs": {"data": "xyz"}}, "was made from another data"),
        ({"flags": {"steps": 1, "new": 3}}, "new=None, now it is 3"),
    ],
)
def test_a_stage_made_of_something_else_is_refused_and_kept(tmp_path, finished, change, message):
    def work(directory):
        (directory / "result.txt").write_text("precious")
        if not finished:
            raise KeyboardInterrupt
        return {}

    with contextlib.suppress(KeyboardInterrupt):
        make(tmp_path / "one", work)

    with pytest.raises(UserError, match=message):
        make(tmp_path / "one", write_and_count([]), **change)

    name = "one" if finished else "one.partial"
    assert (tmp_path / name / "result.txt").read_text() == "precious"


def test_a_stage_is_overwritten_when_its_inputs_change_and_only_then(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter), overwrite=True)
    (tmp_path / "one" / "old.txt").write_text("of the old inputs")
    kept = make(tmp_path / "one", write_and_count(counter), overwrite=True)
    assert kept.skipped
    assert (tmp_path / "one" / "old.txt").is_file()

    new = make(tmp_path / "one", write_and_count(counter), inputs={"data": "xyz"}, overwrite=True)

    assert new.result == {"answer": 2}
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "result.txt",
        "stage.json",
    ]
    assert open_stage(tmp_path / "one").fingerprint == new.fingerprint != kept.fingerprint


def test_an_overwritten_stage_is_kept_until_the_new_one_is_complete(tmp_path):
    def interrupted(directory):
        (directory / "half.txt").write_text("half")
        raise KeyboardInterrupt

    make(tmp_path / "one", write_and_count([]), overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "one", interrupted, inputs={"data": "xyz"}, overwrite=True)
    assert (tmp_path / "one" / "result.txt").read_text() == "whole"

    # Other inputs again: nothing of the interrupted stage may stay.
    make(tmp_path / "one", write_and_count([]), inputs={"data": "other"}, overwrite=True)

    assert not (tmp_path / "one" / "half.txt").exists()
    assert not (tmp_path / "one.partial").exists()


def test_work_done_under_another_name_is_copied_and_not_repeated(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter))
    others = [tmp_path / "none", tmp_path / "one"]
    two = make(tmp_path / "deep" / "two", write_and_count(counter), reuse_from=others)

    assert counter == ["one.partial"]
    assert (two.name, two.result, two.skipped) == ("two", {"answer": 1}, True)
    assert json.loads((two.directory / "stage.json").read_text())["stage"] == "two"
    assert (two.directory / "result.txt").read_text() == "whole"
    assert (tmp_path / "one" / "result.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["two"]


@pytest.mark.parametrize("change", [{"flags": {"steps": 2}}, {"inputs": {"data": "xyz"}}])
def test_work_done_with_other_flags_or_inputs_is_not_copied(tmp_path, change):
    counter = []
    make(tmp_path / "one", write_and_count(counter))
    make(tmp_path / "two", write_and_count(counter), reuse_from=[tmp_path / "one"], **change)

    assert counter == ["one.partial", "two.partial"]


def test_a_copy_that_fails_leaves_nothing_behind_and_says_why(tmp_path, monkeypatch):
    make(tmp_path / "one", write_and_count([]))

    def full(source, target, **more):
        target.mkdir()
        (target / "half.txt").write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(UserError, match=r"two: cannot be copied from .*one \(no space left"):
        make(tmp_path / "two", reuse_from=[tmp_path / "one"])

    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_begun_stage_resumes_even_if_the_same_work_is_finished_elsewhere(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter))
    (tmp_path / "two.partial").mkdir()
    begun = {"schema_version": 3, "flags": {"steps": 1}, "inputs": {"data": "abc"}}
    (tmp_path / "two.partial/stage.json").write_text(json.dumps(begun))
    make(tmp_path / "two", write_and_count(counter), reuse_from=[tmp_path / "one"])

    assert counter == ["one.partial", "two.partial"]


def test_only_the_flags_named_let_a_stage_be_overwritten(tmp_path):
    counter = []
    first = make(tmp_path / "one", write_and_count(counter), flags={"a": 1, "b": 1})
    second = make(
        tmp_path / "one", write_and_count(counter), flags={"a": 2, "b": 1}, overwrite=("a",)
    )
    assert (first.result, second.result) == ({"answer": 1}, {"answer": 2})

    with pytest.raises(UserError, match="was made with b=1, now it is 2"):
        make(tmp_path / "one", write_and_count(counter), flags={"a": 3, "b": 2}, overwrite=("a",))
    assert open_stage(tmp_path / "one").result == {"answer": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_the_error_names_only_the_nested_flags_that_differ(tmp_path):
    flags = {"optimization": {"steps": 150, "seed": 0}, "loss": {"margin": 0.3}}
    make(tmp_path / "one", write_and_count([]), flags=flags)
    other = {**flags, "optimization": {"steps": 300, "seed": 0}}
    with pytest.raises(UserError) as refused:
        make(tmp_path / "one", write_and_count([]), flags=other)
    assert "one: was made with optimization.steps=150, now it is 300; remove" in str(refused.value)
    named = {"optimization.steps": "--student_steps"}
    with pytest.raises(UserError, match=r"one: was made with --student_steps=150, now it is 300;"):
        make(tmp_path / "one", write_and_count([]), flags=other, flag_names=named)


@pytest.mark.parametrize("name", ["one", "one.partial"])
@pytest.mark.parametrize(
    ("version", "written"),
    [(2, "of format 2"), (4, "of format 4"), (None, "without a format version")],
)
def test_a_stage_of_another_format_is_refused_in_one_line(tmp_path, name, version, written):
    (tmp_path / name).mkdir()
    record = {"schema_version": version, "flags": {"old": 1}, "inputs": {}}
    (tmp_path / name / "stage.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as refused:
        make(tmp_path / "one", overwrite=True)
    assert str(refused.value) == (
        f"{tmp_path / name}: a stage {written}, written by another release; this release reads and "
        "writes format 3; remove that directory or choose another --run_dir"
    )


@pytest.fixture
def chain(tmp_path):
    """A run whose stages depend on each other: first <- second <- third; other stands alone."""
    fingerprints = {}
    for name, source in (
        ("first", None),
        ("second", "first"),
        ("third", "second"),
        ("other", None),
    ):
        inputs = {source: fingerprints[source]} if source else {}
        made = make(tmp_path / name, write_and_count([]), flags={"of": name}, inputs=inputs)
        fingerprints[name] = made.fingerprint
    return tmp_path


def test_stages_are_set_aside_with_everything_made_from_them(chain):
    found = stages_from(chain, ["second"])
    assert [path.name for path in found] == ["second", "third"]
    aside = set_aside(chain, found)
    assert aside == chain / "replaced" / "1"
    assert sorted(path.name for path in chain.iterdir()) == ["first", "other", "replaced"]
    assert open_stage(aside / "third").flags == {"of": "third"}

    assert set_aside(chain, stages_from(chain, ["other", "first"])).name == "2"


def test_a_missing_stage_cannot_be_set_aside(chain):
    with pytest.raises(UserError, match=r"--redo_from=fourth: .* no such stage; it has first, oth"):
        stages_from(chain, ["first", "fourth"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_not_a_stage_is_refused(tmp_path, overwrite):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.txt").write_text("precious")

    with pytest.raises(UserError, match="is not a stage"):
        make(tmp_path / "one", overwrite=overwrite)

    assert (tmp_path / "one" / "thesis.txt").read_text() == "precious"


def test_a_missing_stage_is_an_error(tmp_path):
    with pytest.raises(UserError, match="stage does not exist"):
        open_stage(tmp_path / "none")


class Killed(BaseException):
    """Simulates SIGKILL; unlike there, Python leaves its blocks."""


@contextlib.contextmanager
def killed_at(monkeypatch, call):
    """Ends the block at the given change to the disk; after it, nothing can change."""
    calls = 0

    def mortal(function):
        def change(*arguments, **more):
            nonlocal calls
            calls += 1
            if calls > call:
                raise Killed
            return function(*arguments, **more)

        return change

    with monkeypatch.context() as patch:
        for module, names in (
            (os, ("replace", "rename", "unlink", "rmdir", "mkdir")),
            (pathlib.Path, ("rename", "unlink", "mkdir", "write_text", "chmod")),
            (shutil, ("rmtree", "copytree")),
            (tempfile, ("mkstemp",)),
        ):
            for name in names:
                patch.setattr(module, name, mortal(getattr(module, name)))
        yield


def work_with_scratch(directory):
    (directory / "scratch").mkdir(exist_ok=True)
    (directory / "scratch" / "step.npz").write_text("half way")
    with atomic_path(directory / "result.txt") as temporary:
        temporary.write_text("whole")
    return {"answer": 42}


@pytest.mark.parametrize("case", ["new", "overwritten", "overwritten half", "reused"])
def test_a_stage_killed_anywhere_is_complete_after_the_next_call(tmp_path, monkeypatch, case):
    # Both are slow, and neither matters here.
    monkeypatch.setattr("apparel_embed.store.record._versions", dict)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    survived = False
    call = 0
    while not survived:
        run = tmp_path / str(call)
        more = {"scratch": ["scratch"]}
        if case.startswith("overwritten"):
            make(run / "one", write_and_count([]), inputs={"data": "old"}, overwrite=True)
            more["overwrite"] = True
        if case == "overwritten half":
            with contextlib.suppress(KeyboardInterrupt):
                make(run / "one", lambda _: interrupt(), inputs={"data": "half"}, overwrite=True)
        if case == "reused":
            make(run / "other", work_with_scratch, **more)
            more["reuse_from"] = [run / "other"]
        try:
            with killed_at(monkeypatch, call):
                make(run / "one", work_with_scratch, **more)
            survived = True
        except Killed:
            if case.startswith("overwritten"):
                # The old stage, or its replacement, exists at any time.
                whole = [run / name / "stage.json" for name in ("one", "one.partial")]
                records = [json.loads(path.read_text()) for path in whole if path.is_file()]
                assert any("result" in record for record in records)
            make(run / "one", work_with_scratch, **more)
        stage = open_stage(run / "one")
        assert stage.result == {"answer": 42}
        assert stage.inputs == {"data": "abc"}
        assert sorted(path.name for path in (run / "one").iterdir()) == ["result.txt", "stage.json"]
        # A process killed at its very end leaves hidden files only.
        left = {"one", ".one.lock", ".one.old"} | ({"other"} if case == "reused" else set())
        assert {path.name for path in run.iterdir()} <= left
        call += 1
    # The number of changes; if it is lower, other functions than those above make them.
    assert call > (5 if case == "reused" else 12)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["one", "one.partial"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"flags": 3}', "\x00"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_stage_file_that_cannot_be_read_is_named_and_nothing_is_touched(
    tmp_path, name, content, overwrite
):
    (tmp_path / name).mkdir()
    (tmp_path / name / "stage.json").write_text(content)
    (tmp_path / name / "model.h5").write_text("precious")

    wrong = rf"{name}/stage.json: cannot be read.*; remove that directory or choose another --run"
    with pytest.raises(UserError, match=wrong):
        make(tmp_path / "one", overwrite=overwrite)

    assert (tmp_path / name / "model.h5").read_text() == "precious"
    if name == "one":
        with pytest.raises(UserError, match=r"stage\.json: cannot be read"):
            open_stage(tmp_path / "one")


def test_a_finished_stage_can_be_found_on_a_read_only_disk(tmp_path, monkeypatch):
    make(tmp_path / "one")

    with killed_at(monkeypatch, 0):
        assert make(tmp_path / "one").skipped
