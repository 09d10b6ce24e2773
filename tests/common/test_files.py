import errno
import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import (
    atomic_path,
    disk_errors_as_user_errors,
    fingerprint_files,
    fingerprint_json,
    read_json,
    remove_temporaries,
    remove_tree,
    sync_tree,
    write_json,
)
from apparel_embed.common.progress import progress_bar


def test_a_file_appears_whole_and_its_directory_is_created(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_does_not_create_the_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", 1)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == 0o640


def test_json_round_trips_and_is_readable(tmp_path):
    value = {"name": "Kleid, größer", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "größer" in (tmp_path / "file.json").read_text("utf-8")


def test_a_value_that_is_not_json_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def backwards(value):
    """Returns an equal value with the keys of all dictionaries in reverse order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(list(value))}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@settings(derandomize=True, deadline=None, max_examples=100)
@given(values)
def test_fingerprint_does_not_depend_on_the_order_of_keys(value):
    fingerprint = fingerprint_json(value)
    assert len(fingerprint) == 64
    assert fingerprint_json(backwards(value)) == fingerprint
    assert fingerprint_json(json.loads(json.dumps(value))) == fingerprint


def test_fingerprint_depends_on_values_and_the_order_of_lists():
    others = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, [1, 2], [2, 1], [[1], 2], None, {}]
    assert len({fingerprint_json(value) for value in others}) == len(others)


def test_fingerprint_of_files_depends_on_contents_order_and_borders(tmp_path):
    contents = {"a": b"one", "b": b"two", "c": b"onetwo", "d": b"", "same_as_a": b"one"}
    paths = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)

    def fingerprint(*names):
        return fingerprint_files([paths[name] for name in names])

    assert fingerprint("a", "b") == fingerprint("same_as_a", "b")
    different = [("a", "b"), ("b", "a"), ("c",), ("c", "d"), ("a",), ("d",), ()]
    assert len({fingerprint(*names) for names in different}) == len(different)


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, c=call: (done.append(n), c(*a))[1])
    write_json(tmp_path / "file.json", 1)
    assert done == ["fsync", "replace"]

    done.clear()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text("x")
    sync_tree(tmp_path)
    assert done == ["fsync"] * 4


def test_only_the_files_of_killed_writers_are_removed(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in (".file.json.abc", "deep/.model.x.h5", "file.json", "deep/model.h5"):
        (tmp_path / name).write_text("x")
    remove_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "file.json", "model.h5"]
    remove_temporaries(tmp_path / "none")


def test_a_tree_is_renamed_before_it_is_removed(tmp_path, monkeypatch):
    def killed(path, **more):
        if path.exists():
            raise KeyboardInterrupt

    (tmp_path / "tree" / "deep").mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()

    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run/model.h5"),
            "run/model.h5: No space left on device; finished work is kept: free some space, and",
        ),
        (RuntimeError("write failed: errno = 28, No space left on device"), "out: No space left"),
        (OSError(errno.EROFS, "Read-only file system"), "out: Read-only .* writable directory"),
        (PermissionError(errno.EACCES, "Permission denied", "out/x"), "out/x: .*the permissions"),
    ],
)
def test_disk_errors_become_one_line(error, message):
    with pytest.raises(UserError, match=message), disk_errors_as_user_errors("out"):
        raise error


@pytest.mark.parametrize(
    "error", [UserError("row 3: No space left on device"), OSError("no tape"), KeyboardInterrupt()]
)
def test_other_errors_are_unchanged(error):
    with pytest.raises(type(error)) as caught, disk_errors_as_user_errors("out"):
        raise error
    assert caught.value is error


def test_a_user_error_is_a_value_error_with_its_message():
    assert issubclass(UserError, ValueError)
    assert str(UserError("file x: row 3")) == "file x: row 3"


def test_a_progress_bar_yields_everything_and_is_silent_without_a_terminal(capsys):
    assert list(progress_bar([1, 2, 3], what="count", unit="numbers")) == [1, 2, 3]
    with progress_bar(total=5, initial=2, what="count", unit="numbers") as bar:
        bar.update(3)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
