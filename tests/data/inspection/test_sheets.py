import io

import numpy as np
from inspected import labels_of, pattern
from PIL import Image

from apparel_embed.data.inspection.sheets import CELL, choose_sheets, draw_sheet


def jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def some_labels(tmp_path, items=20):
    rows = [
        (f"item{item}", "tops", "train", role)
        for item in range(items)
        for role in ("query", "gallery", "both")
    ]
    return labels_of(tmp_path, [*rows, *[("big", "bags", "test", "gallery")] * 12])


def test_items_are_drawn_by_seed_and_shown_gallery_first(tmp_path):
    labels = some_labels(tmp_path)
    bags, tops = choose_sheets(labels, 4, 0)
    assert (bags.vertical, tops.vertical) == ("bags", "tops")
    assert (tops.of_items, len(tops.items)) == (20, 4)
    assert choose_sheets(labels, 4, 0) == (bags, tops)
    assert choose_sheets(labels, 4, 1)[1] != tops
    first = tops.items[0]
    number = int(first.item[4:])
    assert first.rows == (3 * number + 1, 3 * number + 2, 3 * number)
    assert (first.gallery, first.queries) == ((True, True, False), (False, True, True))
    assert (first.split, first.pictures) == ("train", 3)
    assert (bags.items[0].pictures, len(bags.items[0].rows)) == (12, 8)
    assert choose_sheets(labels, 0, 0) == ()


def test_a_sheet_has_a_row_an_item_and_stays_small(tmp_path):
    _, sheet = choose_sheets(some_labels(tmp_path, 20), 20, 0)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    thumbnails = {row: jpeg(Image.fromarray(noise)) for row in sheet.rows}
    drawn = draw_sheet(sheet, thumbnails)
    assert len(drawn) <= 300_000
    assert Image.open(io.BytesIO(drawn)).size == (3 * CELL, 20 * CELL)


def test_pictures_that_cannot_be_used_are_a_cross_and_roles_are_bars(tmp_path):
    labels = labels_of(tmp_path, [("a", "tops", "test", "gallery"), ("a", "tops", "test", "query")])
    (sheet,) = choose_sheets(labels, 1, 0)
    image = Image.open(io.BytesIO(draw_sheet(sheet, {0: jpeg(pattern(0, (72, 96)))})))
    pixels = np.asarray(image).astype(int)
    red, blue = pixels[CELL // 2, CELL + CELL // 2], pixels[CELL - 5, CELL // 4]
    assert red[0] > red[1] + 60
    assert blue[2] > blue[0] + 60
    # The second is a query only: bar on the right, none on the left.
    assert (
        pixels[CELL - 5, CELL + 3 * CELL // 4, 0] > pixels[CELL - 5, CELL + 3 * CELL // 4, 2] + 60
    )
    assert (pixels[CELL - 7, CELL + CELL // 4] > 200).all()
