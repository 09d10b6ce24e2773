import numpy as np
from PIL import Image

from apparel_embed.data.importers.picture_sizes import picture_sizes


def test_sizes_are_upright_and_unknown_where_there_is_no_picture(tmp_path):
    Image.new("RGB", (30, 44)).save(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 44)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    names = ["a.jpg", "turned.jpg", "bad.jpg", "none.jpg", "http://x/y.jpg"]
    widths, heights = picture_sizes(tmp_path, names)
    np.testing.assert_array_equal(widths, [30, 44, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(heights, [44, 30, np.nan, np.nan, np.nan])
