import json

import pytest
from serving_models import DIM, VERTICALS, drawn, encoded, exif, photograph

from apparel_embed.serving import LocalModel
from apparel_embed.serving.query import answer_lines, garment_lines, read_images


def test_each_image_has_a_line(exported_with_head, tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded(drawn(), "WEBP"))
    (tmp_path / "b.txt").write_text("not an image")
    model = LocalModel(exported_with_head)
    paths = [str(tmp_path / name) for name in ("a.webp", "b.txt")]
    whole, none = map(json.loads, answer_lines(read_images(paths)[0], model))

    assert (whole["image"], whole["valid"], len(whole["embedding"])) == (paths[0], True, DIM)
    assert whole["vertical"] in VERTICALS
    assert 1 / 3 < whole["vertical_score"] <= 1
    assert none == {"image": paths[1], "valid": False, "embedding": [0.0] * DIM}


def test_unreadable_files_are_named_and_the_others_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    paths = [str(tmp_path / name) for name in ("nowhere.jpg", "a.jpg", "")]

    images, failures = read_images(paths)

    assert images == {paths[1]: b"a"}
    assert failures == [
        f"{paths[0]}: cannot be read (No such file or directory)",
        f"{paths[2]}: cannot be read (Is a directory)",
    ]


@pytest.mark.slow
def test_each_photograph_has_a_line_with_its_garments(exported_with_detector):
    turned = photograph({0: (20, 30, 80, 120), 2: (110, 80, 200, 150)}).transpose(2)
    images = {"a.jpg": encoded(turned, exif=exif(6)), "b.txt": b"text"}
    images["ö.png"] = encoded(photograph({}), "PNG")
    model = LocalModel(exported_with_detector)
    street, none, empty = map(json.loads, garment_lines(images, model))

    assert (street["image"], street["valid"]) == ("a.jpg", True)
    first, second = street["garments"]
    assert (first["vertical"], second["vertical"]) == (VERTICALS[0], VERTICALS[2])
    assert first["box"] == pytest.approx([20, 30, 80, 120], abs=1.7)
    assert second["box"] == pytest.approx([110, 80, 200, 150], abs=1.7)
    assert 0.3 <= second["score"] < first["score"] <= 1
    assert len(first["embedding"]) == DIM
    assert none == {"image": "b.txt", "valid": False, "garments": []}
    assert empty == {"image": "ö.png", "valid": True, "garments": []}
