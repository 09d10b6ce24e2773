import io

import pytest
from PIL import Image

from apparel_embed.data.image_pool import prepare_images
from apparel_embed.data.images import ImageSettings, RejectedImage


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def tasks(tmp_path):
    for name in ("red", "green", "blue"):
        (tmp_path / f"{name}.png").write_bytes(png(name))
    return [("red.png", None), ("none.png", None), ("blue.png", (0, 0, 9, 9))]


@pytest.mark.slow
def test_threads_prepare_the_same_images_as_processes(tasks, tmp_path):
    settings = ImageSettings(max_side=16)
    by_processes = list(prepare_images(tasks, tmp_path, settings, 1))
    assert list(prepare_images(tasks, tmp_path, settings, 2, threads=True)) == by_processes
    assert by_processes[1] == "no such file"
    assert by_processes[0].jpeg != by_processes[2].jpeg


def test_remote_uris_are_fetched_if_a_function_is_given(tmp_path):
    def fetch(uri):
        if uri != "gs://bucket/red.png":
            raise RejectedImage("no such file")
        return png("red")

    tasks = [("gs://bucket/red.png", None), ("gs://bucket/blue.png", None)]
    settings = ImageSettings()
    found = list(prepare_images(tasks, tmp_path, settings, 1, threads=True, fetch=fetch))
    assert (found[0].width, found[1]) == (20, "no such file")
    found = list(prepare_images(tasks, tmp_path, settings, 1, threads=True))
    assert all("gs:// is not supported" in reason for reason in found)
