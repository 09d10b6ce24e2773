"""Deltas of a catalogue of plain colours, whose model embeds the mean colour of an image."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings
from apparel_embed.search.build import build_index, remove_images
from apparel_embed.search.delta import apply_delta
from apparel_embed.search.index import IndexSettings, Version, open_index

SETTINGS = ImageSettings()
COUNTS = {"added": 0, "changed": 0, "renamed": 0, "removed": 0, "unchanged": 0, "embedded": 0}
CHANGES = ("added", "changed", "renamed", "removed")


def colour_of(number):
    return tuple(np.random.default_rng(number).integers(20, 235, 3).tolist())


def mean_colours(images):
    """Embeds images and counts them; dark ones are not valid."""
    mean_colours.count += len(images)
    means = np.array([np.asarray(Image.open(io.BytesIO(one))).mean((0, 1)) for one in images])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return (means / np.maximum(lengths, 1)).astype(np.float32), lengths[:, 0] > 10


@pytest.fixture
def shop(tmp_path, new_index):
    """A catalogue of 40 images, two per item, added by a first delta."""
    mean_colours.count = 0
    with open_index(new_index()) as index:
        started = Shop(tmp_path, index)
        rows = []
        for number in range(40):
            rows.append(f"add,{started.image(number)},item{number // 2},bag")
        started.version = build_index(index, Version("a" * 64, 3), iter([])).version
        first = started.apply(*rows)
        assert first.counts == {**COUNTS, "added": 40, "embedded": 40}
        mean_colours.count = 0
        yield started


class Shop:
    def __init__(self, directory, index):
        self.directory, self.index, self.version = directory, index, None
        # A server keeps no editions, and changes are not atomic.
        self.is_file = hasattr(index, "_path")
        self.edition = 0

    def image(self, number, name=None):
        name = name or f"{number}.png"
        Image.new("RGB", (12, 12), colour_of(number)).save(self.directory / name)
        return name

    def apply(self, *rows, embed=mean_colours, most_removed=0.1, header=""):
        path = self.directory / "night.csv"
        path.write_text("\n".join([header or "change,image,item_id,vertical", *rows]))
        arguments = self.index, self.version, path, SETTINGS, embed
        done = apply_delta(*arguments, most_removed=most_removed)
        self.version = self.index.current()
        self.edition += any(done.counts[kind] for kind in CHANGES) and embed is not None
        assert self.version.edition == (self.edition if self.is_file else 0)
        return done

    def rows(self):
        """All images by path."""
        found = self.index.find(self.version, list(self.index.keys(self.version)))
        return {one.image: (one.item, one.vertical, vector.tolist()) for one, vector in found}


def test_a_delta_embeds_only_new_content_and_nothing_when_repeated(shop):
    shop.image(100, "3.png")  # Other bytes, the same name.
    shop.image(7, "seven.png")  # The same bytes, another name.
    rows = (
        f"add,{shop.image(101)},item50,hat",
        "add,3.png,item1,bag",
        "add,seven.png,item51,bag",
        "add,8.png,item52,bag",  # Unchanged except for the item.
        "add,9.png,item4,bag",  # Unchanged.
        "remove,10.png,,",
        "remove,,item6,",
    )
    planned = shop.apply(*rows, embed=None)
    assert mean_colours.count == 0 and shop.edition == 1

    done = shop.apply(*rows)
    expected = {"added": 2, "changed": 1, "renamed": 1, "removed": 3, "unchanged": 1, "embedded": 2}
    assert planned.counts == done.counts == expected
    assert mean_colours.count == 2
    assert shop.edition == 2 and shop.version.images == 40 + 2 - 3
    assert shop.version.verticals == ("bag", "hat")
    after = shop.rows()
    assert {"10.png", "12.png", "13.png"}.isdisjoint(after)
    assert after["seven.png"][2] == after["7.png"][2]
    assert after["8.png"][0] == "item52"
    colour = np.array(colour_of(100)) / np.linalg.norm(colour_of(100))
    np.testing.assert_allclose(after["3.png"][2], colour, atol=0.01)

    again = shop.apply(*rows)
    assert again.counts == {**COUNTS, "unchanged": 5}
    assert again.unknown == ["image 10.png", "item item6"]
    assert shop.edition == 2 and shop.rows() == after
    assert mean_colours.count == 2


def test_missing_images_to_remove_are_reported_and_nothing_else_changes(shop):
    before = shop.rows()
    done = shop.apply("remove,nowhere.png,,", "remove,,no such item,")
    assert done.unknown == ["image nowhere.png", "item no such item"]
    assert (done.counts, shop.edition, shop.rows()) == (COUNTS, 1, before)


def test_a_broken_image_is_reported_and_keeps_the_old_vector(shop):
    before = shop.rows()
    (shop.directory / "0.png").write_bytes(b"not an image")
    Image.new("RGB", (12, 12), (1, 1, 1)).save(shop.directory / "1.png")
    done = shop.apply("add,0.png,item0,bag", "add,1.png,item0,bag", "add,gone.png,x,bag")
    assert [image for image, _ in done.rejected] == ["0.png", "gone.png", "1.png"]
    assert dict(done.rejected)["1.png"] == "the model could not embed it"
    assert shop.rows() == before
    # It also stays if its item is removed and added again.
    done = shop.apply("remove,,item0,", "add,0.png,item0,bag")
    assert done.counts == {**COUNTS, "removed": 1}
    assert shop.rows() == {name: row for name, row in before.items() if name != "1.png"}


def test_equal_images_are_embedded_once_and_a_repeated_image_is_one_row(shop):
    names = [shop.image(200, f"new{number}.png") for number in range(3)]
    rows = [f"add,{name},item60,bag" for name in (*names, names[0])]
    assert shop.apply(*rows).counts == {**COUNTS, "added": 3, "embedded": 1}
    before = shop.rows()
    with pytest.raises(UserError, match=r"row 3: column 'image': 'a.png' has another .* in row 2;"):
        shop.apply("add,a.png,item1,bag", "add,a.png,item2,bag")
    assert shop.rows() == before


def test_boxes_of_one_photograph_are_separate_images(shop):
    photograph = Image.new("RGB", (40, 20), colour_of(1))
    photograph.paste(colour_of(2), (20, 0, 40, 20))
    photograph.save(shop.directory / "street.png")
    header = "change,image,item_id,vertical,x_min,y_min,x_max,y_max"
    left, right = "street.png,left,bag,0,0,18,20", "street.png,right,bag,22,0,40,20"
    done = shop.apply(f"add,{left}", f"add,{right}", header=header)
    assert done.counts == {**COUNTS, "added": 2, "embedded": 2}
    done = shop.apply(f"remove,{left}", "remove,street.png,,,1,1,2,2", header=header)
    assert done.counts == {**COUNTS, "removed": 1}
    assert done.unknown == ["image street.png with this box"]
    assert shop.rows()["street.png"][0] == "right"


def test_removing_more_than_allowed_is_refused(shop):
    before, rows = shop.rows(), [f"remove,,item{number}," for number in range(3)]
    with pytest.raises(UserError, match=r"6 of 40 images .* --most_removed is 0.1. Nothing was"):
        shop.apply(*rows, embed=None)
    with pytest.raises(UserError, match="6 of 40"):
        shop.apply(*rows)
    assert shop.rows() == before
    assert shop.apply(*rows, most_removed=0.15).counts["removed"] == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["drop,a.png,1,bag"], "row 2: column 'change': 'drop'; expected one of add, remove"),
        (["remove,,,"], "row 2: column 'image': ''; expected an image or an item_id to remove"),
        (["remove,0.png,,", "add,,1,bag"], "row 3: column 'image': ''; expected non-empty"),
        (["add,a.png,1,"], "row 2: column 'vertical': ''; expected non-empty text"),
        (["add,a.png,1,bag", "add,b.png,1,hat"], "row 3: column 'vertical': 'hat', but item_id"),
    ],
)
def test_an_invalid_delta_changes_nothing(shop, rows, message):
    before = shop.rows()
    with pytest.raises(UserError) as error:
        shop.apply(*rows)
    assert message in str(error.value)
    assert shop.rows() == before


def test_every_kept_edition_can_be_restored(shop):
    if not shop.is_file:
        pytest.skip("a server keeps no editions")
    states = [shop.rows()]
    for night in range(3):
        shop.image(300 + night, "0.png")
        shop.apply(f"add,{shop.image(310 + night)},i{night},hat", "add,0.png,item0,bag")
        states.append(shop.rows())
    shop.version = remove_images(shop.index, shop.version, [*shop.index.keys(shop.version)][:2])
    for edition in (4, 2, 2):
        shop.version = shop.index.roll_back(shop.version, edition)
        assert (shop.version.edition, shop.rows()) == (edition, states[edition - 1])
    # Undone editions no longer exist.
    for edition in (3, -1):
        with pytest.raises(UserError, match=f"edition {edition} is not kept; expected 0 to 2"):
            shop.index.roll_back(shop.version, edition)
    shop.version = shop.index.roll_back(shop.version, 1)
    assert shop.rows() == states[0] and shop.version.verticals == ("bag",)
    # Filling the index again discards its earlier editions.
    shop.version = shop.index.finish(shop.version)
    with pytest.raises(UserError, match="expected 0 to 0"):
        shop.index.roll_back(shop.version, 1)


def test_nothing_changes_before_an_unfinished_filling_is_repeated(shop):
    shop.index.begin(shop.version)
    changes = [
        lambda: shop.apply("remove,3.png,,"),
        lambda: remove_images(shop.index, shop.version, [*shop.index.keys(shop.version)][:2]),
    ]
    if shop.is_file:
        changes.append(lambda: shop.index.roll_back(shop.version, 1))
    for change in changes:
        with pytest.raises(UserError, match="the last filling of the index did not finish"):
            change()
    assert len(shop.rows()) == 40
    shop.version = build_index(shop.index, shop.version, iter([])).version
    shop.edition = 0
    shop.apply("remove,3.png,,")
    assert len(shop.rows()) == 39


def test_queries_are_left_out_and_names_are_trimmed(shop):
    header = "change,image,item_id,vertical,role"
    rows = (
        f"add,{shop.image(200)}, item70 ,bag ,gallery",
        f"add,{shop.image(201)},item70,bag,query",
        "remove,, item3 ,,",
    )
    done = shop.apply(*rows, header=header)
    assert done.counts == {**COUNTS, "added": 1, "removed": 2, "embedded": 1}
    assert shop.rows()["200.png"][:2] == ("item70", "bag")
    assert {"201.png", "6.png", "7.png"}.isdisjoint(shop.rows())


def test_concurrent_searches_see_all_of_a_delta_or_nothing(shop):
    if not shop.is_file:
        pytest.skip("a server changes image by image")
    seen, done, failed = set(), threading.Event(), []

    def search():
        with open_index(str(shop.index._path), to_read=True) as index:
            while not done.is_set():
                try:
                    hits = index.search(index.current(), np.eye(3)[0], 100, by_item=False)
                    seen.add(frozenset(hit.image.image for hit in hits))
                except Exception as error:
                    failed.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    states = {frozenset(shop.rows())}
    for night in range(5):
        added = [f"add,{shop.image(400 + 10 * night + n)},night{night},hat" for n in range(5)]
        shop.apply(*added, f"remove,{night}.png,,")
        states.add(frozenset(shop.rows()))
    done.set()
    thread.join()
    assert not failed
    assert seen and seen <= states


def test_an_index_by_item_is_changed_image_by_image(shop):
    if not shop.is_file:
        pytest.skip("a server searches images")
    by_item = Version("a" * 64, 3, settings=IndexSettings(index_by="item"))
    shop.version = build_index(shop.index, by_item, iter([])).version
    shop.edition = 0
    assert shop.version.images == 40

    def nearest(query):
        hits = shop.index.search(shop.version, query, 100, by_item=False)
        assert len({hit.image.item for hit in hits}) == len(hits)
        return hits

    assert len(nearest(np.eye(3)[0])) == 20
    vectors = [np.array(shop.rows()[f"{number}.png"][2]) for number in (0, 1)]
    mean = np.mean(vectors, axis=0) / np.linalg.norm(np.mean(vectors, axis=0))
    hit = nearest(mean)[0]
    assert hit.image.item == "item0" and hit.distance < 1e-3
    shop.apply("remove,0.png,,")
    assert len(nearest(mean)) == 20
    (left,) = (one for one in nearest(vectors[1]) if one.image.item == "item0")
    assert left.distance < 1e-3 and left.image.image == "1.png"


@pytest.mark.slow
def test_images_of_a_prepared_dataset_are_recognized_by_content(catalogue):
    index, dataset = catalogue.index, catalogue.dataset
    version = index.current()
    images = index.find(version, sorted(index.keys(version))[:5])
    rows = [f"add,{one.image},{one.item},{one.vertical}" for one, _ in images]
    path = catalogue.manifest.parent / "night.csv"
    path.write_text("\n".join(["change,image,item_id,vertical", *rows]))
    assert version.image_settings == dataset.image_settings
    done = apply_delta(index, version, path, version.image_settings, None)
    assert done.counts == {**COUNTS, "unchanged": 5}
