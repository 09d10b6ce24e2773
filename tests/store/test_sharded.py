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
    """Returns the work of making two shards, and a list of those that it wrote."""
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


def test_an_interrupted_one_goes_on_and_leaves_nothing_but_the_result(directory, tmp_path):
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


def test_a_shard_whose_file_or_note_is_gone_is_made_again(directory, tmp_path):
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
    ("changed", "said"),
    [
        ({"settings": {"side": 8}}, "side is 9 there, 8 now; give another --output"),
        ({"settings": {}}, "side is 9 there, None now"),
        ({"model": "b" * 64}, "out(.partial)? was made from something else: the model is another;"),
        ({"schema_version": 2}, r"a \w+ of format 1, .* reads and writes format 2; remove it"),
    ],
)
def test_another_plan_is_refused_and_told(directory, tmp_path, changed, said, finished):
    def work():
        if not finished:
            raise KeyboardInterrupt
        return {}

    with contextlib.suppress(KeyboardInterrupt):
        directory.make(PLAN, work)
    look = directory.find_finished if finished else directory.is_begun
    for call in (look, lambda plan: directory.make(plan, dict)):
        with pytest.raises(UserError, match=said):
            call({**PLAN, **changed})


def test_what_is_something_else_is_refused_and_left_alone(directory, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"out\.partial exists and was not made as a thing"):
        directory.make(PLAN, dict)
    (tmp_path / "out").mkdir()
    directory.find_finished(PLAN)
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="out exists and is no thing; give another --output"):
        directory.make(PLAN, dict)
    (tmp_path / "out.partial" / "thesis.txt").unlink()
    (tmp_path / "out.partial" / "plan.json").write_text("[1]")
    with pytest.raises(UserError, match=r"plan\.json: is damaged"):
        directory.is_begun(PLAN)
