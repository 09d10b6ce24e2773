"""Sessions as TensorBoard's HParams tab has them."""

from tensorboard_plugins import hparams_table

from apparel_embed.report.hparams import Session, write_sessions

SESSIONS = [
    Session("one", {"kind": "x", "size": 2, "share": 0.5, "fast": True}, {"r_at_1": 0.25}),
    Session("two", {"kind": "y"}, {}),
]


def test_sessions_are_finished_lines_with_hparams_and_metrics(tmp_path):
    write_sessions(tmp_path / "stage", SESSIONS)
    assert hparams_table(tmp_path) == {
        "stage/one": ({"kind": "x", "size": 2.0, "share": 0.5, "fast": True}, {"r_at_1": 0.25}),
        "stage/two": ({"kind": "y"}, {}),
    }


def test_what_an_interrupted_call_has_left_goes(tmp_path):
    write_sessions(tmp_path / "stage", SESSIONS)
    write_sessions(tmp_path / "stage", SESSIONS[1:])
    assert sorted(hparams_table(tmp_path)) == ["stage/two"]


def test_without_sessions_there_is_no_directory(tmp_path):
    write_sessions(tmp_path / "stage", [])
    assert not any(tmp_path.iterdir())
