import pytest
from pyarrow import fs

from apparel_embed.common import locations
from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import beside, is_remote, locate, write_aside
from apparel_embed.data.image_pool import read_remote
from apparel_embed.data.images import RejectedImage


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Serves URIs of scheme shop:// from a directory, and returns it."""
    directory = tmp_path / "store"
    directory.mkdir()
    system = fs.SubTreeFileSystem(str(directory), fs.LocalFileSystem())
    monkeypatch.setattr(locations, "_connect", lambda root: (system, root.partition("://")[2]))
    return directory


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("/a/b.jpg", "/a/b.jpg"),
        ("file:///a/%C3%BC%20b.jpg", "/a/ü b.jpg"),
    ],
)
def test_paths_and_file_uris_are_on_this_machine(location, path):
    assert not is_remote(location)
    assert isinstance(locate(location)[0], fs.LocalFileSystem)
    assert locate(location)[1] == path


def test_other_uris_are_in_a_store_and_their_names_are_not_decoded(shop):
    assert is_remote("shop://bucket/a/%20b.jpg")
    assert locate("shop://bucket/a/%20b.jpg")[1] == "bucket/a/%20b.jpg"


@pytest.mark.parametrize(
    ("location", "seen"),
    [("a.jpg", "gs://b/c/a.jpg"), ("/a.jpg", "/a.jpg"), ("s3://b/a.jpg", "s3://b/a.jpg")],
)
def test_relative_locations_are_resolved_against_the_directory(location, seen):
    assert beside(location, "gs://b/c/") == seen


def test_an_image_is_read_from_a_store(shop):
    (shop / "b").mkdir()
    (shop / "b" / "a.jpg").write_bytes(b"image")
    assert read_remote("shop://b/a.jpg") == b"image"
    with pytest.raises(RejectedImage, match=r"^no such file$"):
        read_remote("shop://b/none.jpg")


def test_an_unknown_store_rejects_the_image_and_names_the_supported_ones():
    with pytest.raises(RejectedImage, match=r"http://shop: cannot .*expected a path.*gs://"):
        read_remote("http://shop/a.jpg")


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_appears_whole_and_an_older_one_survives_a_failure(shop, tmp_path, remote):
    location = "shop://b/c/file" if remote else str(tmp_path / "b/c/file")
    path = (shop if remote else tmp_path) / "b/c/file"
    with write_aside(location) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(KeyError), write_aside(location) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"


def test_a_file_that_cannot_be_written_gives_an_error_of_one_line(tmp_path):
    (tmp_path / "file").touch()
    wrong = r"file/a: cannot be written.*run the same command again"
    with pytest.raises(UserError, match=wrong), write_aside(str(tmp_path / "file" / "a")) as file:
        file.write(b"")
