import contextlib
import json

import pytest

from apparel_embed.errors import UserError
from apparel_embed.runs import open_stage, run_stage


def make(directory, work=lambda directory: {"answer": 42}, flags=None, inputs=None, **more):
    return run_stage(
        directory, flags=flags or {"steps": 1}, inputs=inputs or {"data": "abc"}, work=work, **more
    )


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
    assert record["versions"]["tensorflow"] == "2.15.1"
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


def test_an_interrupted_stage_goes_on_with_what_it_left(tmp_path):
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
    ("change", "said"),
    [
        ({"flags": {"steps": 2}}, "steps=1, now it is 2"),
        ({"inputs": {"data": "xyz"}}, "data='abc', now it is 'xyz'"),
        ({"flags": {"steps": 1, "new": 3}}, "new=None, now it is 3"),
    ],
)
def test_a_stage_made_of_something_else_is_refused_and_kept(tmp_path, finished, change, said):
    def work(directory):
        (directory / "result.txt").write_text("precious")
        if not finished:
            raise KeyboardInterrupt
        return {}

    with contextlib.suppress(KeyboardInterrupt):
        make(tmp_path / "one", work)

    with pytest.raises(UserError, match=said):
        make(tmp_path / "one", write_and_count([]), **change)

    name = "one" if finished else "one.partial"
    assert (tmp_path / name / "result.txt").read_text() == "precious"


def test_a_stage_to_be_renewed_is_made_anew_when_its_inputs_change_and_only_then(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter), renewed=True)
    (tmp_path / "one" / "old.txt").write_text("of the old inputs")
    kept = make(tmp_path / "one", write_and_count(counter), renewed=True)
    assert kept.skipped
    assert (tmp_path / "one" / "old.txt").is_file()

    new = make(tmp_path / "one", write_and_count(counter), inputs={"data": "xyz"}, renewed=True)

    assert new.result == {"answer": 2}
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "result.txt",
        "stage.json",
    ]
    assert open_stage(tmp_path / "one").fingerprint == new.fingerprint != kept.fingerprint


def test_a_stage_to_be_renewed_keeps_the_old_one_until_the_new_one_is_whole(tmp_path):
    def interrupted(directory):
        (directory / "half.txt").write_text("half")
        raise KeyboardInterrupt

    make(tmp_path / "one", write_and_count([]), renewed=True)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "one", interrupted, inputs={"data": "xyz"}, renewed=True)
    assert (tmp_path / "one" / "result.txt").read_text() == "whole"

    # Of yet other inputs: nothing of the interrupted one may stay.
    make(tmp_path / "one", write_and_count([]), inputs={"data": "other"}, renewed=True)

    assert not (tmp_path / "one" / "half.txt").exists()
    assert not (tmp_path / "one.partial").exists()


def test_work_done_by_another_name_is_copied_and_not_done_again(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter))
    twins = [tmp_path / "none", tmp_path / "one"]
    two = make(tmp_path / "deep" / "two", write_and_count(counter), twins=twins)

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
    make(tmp_path / "two", write_and_count(counter), twins=[tmp_path / "one"], **change)

    assert counter == ["one.partial", "two.partial"]


def test_a_copy_that_fails_leaves_nothing_behind_and_says_why(tmp_path, monkeypatch):
    make(tmp_path / "one", write_and_count([]))

    def full(source, target, **more):
        target.mkdir()
        (target / "half.txt").write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(UserError, match=r"two: cannot be copied from .*one \(no space left"):
        make(tmp_path / "two", twins=[tmp_path / "one"])

    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_stage_that_has_begun_goes_on_though_a_twin_is_finished(tmp_path):
    counter = []
    make(tmp_path / "one", write_and_count(counter))
    (tmp_path / "two.partial").mkdir()
    made_of = {"flags": {"steps": 1}, "inputs": {"data": "abc"}}
    (tmp_path / "two.partial/stage.json").write_text(json.dumps(made_of))
    make(tmp_path / "two", write_and_count(counter), twins=[tmp_path / "one"])

    assert counter == ["one.partial", "two.partial"]


def test_only_the_flags_named_let_a_stage_be_renewed(tmp_path):
    counter = []
    first = make(tmp_path / "one", write_and_count(counter), flags={"a": 1, "b": 1})
    second = make(
        tmp_path / "one", write_and_count(counter), flags={"a": 2, "b": 1}, renewed=("a",)
    )
    assert (first.result, second.result) == ({"answer": 1}, {"answer": 2})

    with pytest.raises(UserError, match="was made with b=1, now it is 2"):
        make(tmp_path / "one", write_and_count(counter), flags={"a": 3, "b": 2}, renewed=("a",))
    assert open_stage(tmp_path / "one").result == {"answer": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


@pytest.mark.parametrize("renewed", [False, True])
def test_a_directory_that_is_no_stage_is_refused(tmp_path, renewed):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.txt").write_text("precious")

    with pytest.raises(UserError, match="is not a stage"):
        make(tmp_path / "one", renewed=renewed)

    assert (tmp_path / "one" / "thesis.txt").read_text() == "precious"


def test_a_missing_stage_is_told(tmp_path):
    with pytest.raises(UserError, match="no stage is there"):
        open_stage(tmp_path / "none")
