from apparel_embed.serving.saved_model import saved_model_versions


def test_versions_rise_by_number_whatever_else_is_there(tmp_path):
    for name in ("10", "9", "007", "1.partial", "kit"):
        (tmp_path / name).mkdir()
    assert [path.name for path in saved_model_versions(tmp_path)] == ["007", "9", "10"]
    assert saved_model_versions(tmp_path)[-1] == tmp_path / "10"


def test_where_there_is_no_directory_there_are_none(tmp_path):
    assert saved_model_versions(tmp_path / "nowhere") == []
    (tmp_path / "file").touch()
    assert saved_model_versions(tmp_path / "file") == []
