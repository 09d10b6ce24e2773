"""Sessions as shown in TensorBoard's HParams tab."""

from tensorboard_plugins import hparams_table

from apparel_embed.report.hparams import Session, write_sessions

SESSIONS = [
    Session("one", {"kind": "x", "size": 2, "share": 0.5, "fast": True}, {"r_at_1": 0.25}),
    Session("two", {"kind": "y"}, {}),
]


def test_sessions_are_finished_rows_with_hparams_and_metrics(tmp_path):
    write_sessions(tmp_path / "stage", SESSIONS)
    assert hparams_table(tmp_path) == {
        "stage/one": ({"kind": "x", "size": 2.0, "share": 0.5, "fast": True}, {"r_at_1": 0.25}),
        "stage/two": ({"kind": "y"}, {}),
    }


def test_leftovers_of_an_interrupted_call_are_deleted(tmp_path):
    write_sessions(tmp_path / "stage", SESSIONS)
    write_sessions(tmp_path / "stage", SESSIONS[1:])
    assert sorted(hparams_table(tmp_path)) == ["stage/two"]


def test_no_directory_is_created_without_sessions(tmp_path):
    write_sessions(tmp_path / "stage", [])
    assert not any(tmp_path.iterdir())
