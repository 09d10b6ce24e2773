import json

from serving_models import DIM, VERTICALS, encoded, picture

from apparel_embed.serving import LocalModel
from apparel_embed.serving.query import answer_lines, read_pictures


def test_each_picture_has_its_line(exported_with_head, tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded(picture(), "WEBP"))
    (tmp_path / "b.txt").write_text("no picture")
    model = LocalModel(exported_with_head)
    paths = [str(tmp_path / name) for name in ("a.webp", "b.txt")]
    whole, none = map(json.loads, answer_lines(read_pictures(paths)[0], model))

    assert (whole["image"], whole["valid"], len(whole["embedding"])) == (paths[0], True, DIM)
    assert whole["vertical"] in VERTICALS
    assert 1 / 3 < whole["vertical_score"] <= 1
    assert none == {"image": paths[1], "valid": False, "embedding": [0.0] * DIM}


def test_files_that_cannot_be_read_are_named_and_the_others_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    paths = [str(tmp_path / name) for name in ("nowhere.jpg", "a.jpg", "")]

    pictures, failures = read_pictures(paths)

    assert pictures == {paths[1]: b"a"}
    assert failures == [
        f"{paths[0]}: cannot be read (No such file or directory)",
        f"{paths[2]}: cannot be read (Is a directory)",
    ]
