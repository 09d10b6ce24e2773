import numpy as np
import pytest

from apparel_embed.data.labelled_sheet import SIDE, draw_labelled_sheet

GREY = np.full([3, 8, 8, 3], 128.0)


def test_images_are_side_by_side_with_captions_below():
    images = np.zeros([3, 8, 8, 3])
    images[0], images[1], images[2] = [255.4, 0, 0], [0, 300, 0], [-5, 0, 255]
    sheet = draw_labelled_sheet(images, [("one", "bag"), ("two", "bag"), ("three", "bag")], 2)

    step = (sheet.shape[1] - 6) // 2
    line = (sheet.shape[0] - 6) // 2
    middle = 6 + SIDE // 2
    assert sheet[middle, middle].tolist() == [255, 0, 0]
    assert sheet[middle, middle + step].tolist() == [0, 255, 0]
    assert sheet[middle + line, middle].tolist() == [0, 0, 255]
    # Captions below the three images; the fourth place is empty.
    below = slice(6 + SIDE, line)
    assert sheet[below, 6 : 6 + SIDE].min() < 100
    assert sheet[line:, 6 + step :].min() == 255


def test_a_frame_covers_only_the_edge_of_its_image():
    sheet = draw_labelled_sheet(GREY, [("",)] * 3, 3, ["#ff0000", "white", "blue"])
    left, right = 6, 6 + 2 * (SIDE + 6)
    assert sheet[6, left].tolist() == sheet[5 + SIDE, left + SIDE - 1].tolist() == [255, 0, 0]
    assert sheet[6 + SIDE // 2, right + 2].tolist() == [0, 0, 255]
    assert sheet[9, left + 3].tolist() == sheet[9, right + 3].tolist() == [128, 128, 128]
    assert sheet[5, left].tolist() == [255, 255, 255]


@pytest.mark.parametrize("text", ["", "x" * 500, "línea\n\tzwei", "裙子", "<&>"])
def test_any_text_stays_below_its_image(text):
    sheet = draw_labelled_sheet(GREY, [(text,)] * 3, 3)
    plain = draw_labelled_sheet(GREY, [("",)] * 3, 3)
    assert sheet.shape == plain.shape
    np.testing.assert_array_equal(sheet[: 6 + SIDE], plain[: 6 + SIDE])
    gaps = [slice(6 + SIDE + i * (SIDE + 6), 12 + SIDE + i * (SIDE + 6)) for i in range(3)]
    assert all((sheet[:, gap] == 255).all() for gap in gaps)
