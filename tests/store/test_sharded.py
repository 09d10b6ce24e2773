import contextlib
import json

import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.store.sharded import ShardedDirectory

PLAN = {"schema_version": 1, "settings": {"side": 9}, "model": "a" * 64}
NAMES = ["a", "b"]


@pytest.fixture
def directory(tmp_path):
    return ShardedDirectory(str(tmp_path / "out"), "whole.json", "thing")


def writer(directory, tmp_path, stop_at=None):
    """Returns a function that writes two shards, and the list of shards that it has written."""
    written = []

    def work():
        for shard in directory.missing(NAMES):
            if shard == stop_at:
                raise KeyboardInterrupt
            (tmp_path / "out.partial" / NAMES[shard]).write_text(str(shard))
            directory.remember(shard, {"shard": shard})
            written.append(shard)
        return {"shards": [directory.recall(shard) for shard in range(2)]}

    return work, written


def test_an_interrupted_call_resumes_and_leaves_only_the_result(directory, tmp_path):
    work, written = writer(directory, tmp_path, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        directory.make(PLAN, work)
    assert (written, directory.is_begun(PLAN)) == ([0], True)
    assert directory.find_finished(PLAN) is None
    for left in ("out.partial/.a.half", "out.partial/progress/.00001.half"):
        (tmp_path / left).write_text("half")
    work, written = writer(directory, tmp_path)
    summary = directory.make(PLAN, work)
    assert summary == {**PLAN, "shards": [{"shard": 0}, {"shard": 1}]}
    assert written == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "whole.json"]
    assert json.loads((tmp_path / "out/whole.json").read_text()) == summary
    assert directory.make(PLAN, lambda: 1 / 0) == directory.find_finished(PLAN) == summary


def test_a_shard_whose_file_or_note_is_missing_is_made_again(directory, tmp_path):
    work, _ = writer(directory, tmp_path)

    def fail():
        work()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        directory.make(PLAN, fail)
    assert directory.missing(NAMES) == []
    (tmp_path / "out.partial" / "b").unlink()
    assert directory.missing(NAMES) == [1]
    (tmp_path / "out.partial" / "progress" / "00000.json").unlink()
    assert directory.missing(NAMES) == [0, 1]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": {"side": 8}}, "side was 9, now it is 8; choose another --output"),
        ({"settings": {}}, "side was 9, now it is None"),
        ({"model": "b" * 64}, "out(.partial)? was made with other .*: the model differs;"),
        ({"schema_version": 2}, r"a \w+ of format 1, .* writes format 2; remove it"),
    ],
)
def test_another_plan_is_refused(directory, tmp_path, changed, message, finished):
    def work():
        if not finished:
            raise KeyboardInterrupt
        return {}

    with contextlib.suppress(KeyboardInterrupt):
        directory.make(PLAN, work)
    look = directory.find_finished if finished else directory.is_begun
    for call in (look, lambda plan: directory.make(plan, dict)):
        with pytest.raises(UserError, match=message):
            call({**PLAN, **changed})


def test_other_contents_are_refused_and_left_alone(directory, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"out\.partial exists and was not made as a thing"):
        directory.make(PLAN, dict)
    (tmp_path / "out").mkdir()
    directory.find_finished(PLAN)
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="out exists and is not a thing; choose another --output"):
        directory.make(PLAN, dict)
    (tmp_path / "out.partial" / "thesis.txt").unlink()
    (tmp_path / "out.partial" / "plan.json").write_text("[1]")
    with pytest.raises(UserError, match=r"plan\.json: is damaged"):
        directory.is_begun(PLAN)
