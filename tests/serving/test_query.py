import json

import pytest
from serving_models import DIM, VERTICALS, encoded, picture

from apparel_embed.errors import UserError
from apparel_embed.serving import LocalModel
from apparel_embed.serving.query import answer_lines, read_pictures


def test_each_picture_has_its_line(exported_with_head, tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded(picture(), "WEBP"))
    (tmp_path / "b.txt").write_text("no picture")
    model = LocalModel(exported_with_head)
    paths = [str(tmp_path / name) for name in ("a.webp", "b.txt")]
    whole, none = map(json.loads, answer_lines(read_pictures(paths), model))

    assert (whole["image"], whole["valid"], len(whole["embedding"])) == (paths[0], True, DIM)
    assert whole["vertical"] in VERTICALS
    assert 1 / 3 < whole["vertical_score"] <= 1
    assert none == {"image": paths[1], "valid": False, "embedding": [0.0] * DIM}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jpg: cannot be read"):
        read_pictures([str(tmp_path / "nowhere.jpg")])
