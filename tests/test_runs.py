import contextlib
import json

import pytest

from apparel_embed.errors import UserError
from apparel_embed.runs import open_stage, run_stage


def make(directory, work=lambda directory: {"answer": 42}, flags=None, inputs=None):
    return run_stage(
        directory, flags=flags or {"steps": 1}, inputs=inputs or {"data": "abc"}, work=work
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


def test_a_directory_that_is_no_stage_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.txt").write_text("precious")

    with pytest.raises(UserError, match="is not a stage"):
        make(tmp_path / "one")

    assert (tmp_path / "one" / "thesis.txt").read_text() == "precious"


def test_a_missing_stage_is_told(tmp_path):
    with pytest.raises(UserError, match="no stage is there"):
        open_stage(tmp_path / "none")
