import concurrent.futures
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from search_images import some_images, unit_vectors

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.search.build import build_index, named_keys, remove_images
from apparel_embed.search.index import IndexedImage, IndexSettings, Version, open_index

DIM = 8
COUNT = 300
A, B = "a" * 64, "b" * 64
# Each would end or extend a filter that does not quote texts correctly.
VERTICALS = ("dress", 'a "b"', "c\\", "d' or vertical != '", "köjök 裙", 'x" or key != "')


@pytest.fixture(scope="module")
def index(new_index):
    with open_index(new_index()) as opened:
        yield opened


@pytest.fixture(scope="module")
def filled(index):
    """Version A, with COUNT images of odd verticals."""
    rows = [(some_images(COUNT, VERTICALS), unit_vectors(COUNT))]
    return build_index(index, Version(A, DIM), iter(rows)).version


def exact(query, embeddings, k):
    records = np.arange(len(embeddings))
    positions, distances = nearest(query[None], embeddings, k, np.array([-1]), records)
    return positions[0], distances[0]


def test_hits_and_distances_equal_those_of_an_exact_search(index, filled):
    images, embeddings = some_images(COUNT, VERTICALS), unit_vectors(COUNT)
    for query in unit_vectors(5, seed=1):
        hits = index.search(filled, query, 10, by_item=False)
        positions, distances = exact(query, embeddings, 10)
        assert [hit.image for hit in hits] == [images[place] for place in positions]
        np.testing.assert_allclose([hit.distance for hit in hits], distances, atol=1e-5)


def test_grouping_by_item_keeps_the_nearest_image_of_each(index, filled):
    images, embeddings = some_images(COUNT, VERTICALS), unit_vectors(COUNT)
    for query in unit_vectors(5, seed=2):
        expected = {}
        for place in exact(query, embeddings, COUNT)[0]:
            expected.setdefault(images[place].item, images[place])
        hits = index.search(filled, query, 12)
        assert [hit.image for hit in hits] == list(expected.values())[:12]


@pytest.mark.parametrize("vertical", VERTICALS)
def test_a_vertical_of_any_name_is_searched_alone(index, filled, vertical):
    hits = index.search(filled, unit_vectors(1, seed=3)[0], 100, vertical=vertical, by_item=False)

    assert len(hits) == COUNT // len(VERTICALS)
    assert {hit.image.vertical for hit in hits} == {vertical}


def test_an_image_is_found_by_key_and_can_be_left_out(index, filled):
    image, embedding = some_images(8, VERTICALS)[7], unit_vectors(COUNT)[7]

    ((found, stored),) = index.find(filled, [image.key])
    hits = index.search(filled, stored, 1, by_item=False, without=image.key)

    assert found == image
    np.testing.assert_array_equal(stored, embedding)
    assert hits[0].image != image
    assert index.find(filled, ["f" * 32]) == []


def test_filling_again_replaces_and_removes_images(new_index):
    with open_index(new_index()) as index:
        build_index(index, Version(A, DIM), iter([(some_images(20), unit_vectors(20))]))
        again = build_index(index, Version(A, DIM), iter([(some_images(20), unit_vectors(20))]))
        assert (again.version.images, again.deleted) == (20, 0)

        moved = [dataclasses.replace(one, vertical="top") for one in some_images(12)]
        rows = iter([(moved, unit_vectors(12, seed=9))])
        less = build_index(index, Version(A, DIM), rows, replaced=set(index.keys(again.version)))
        assert (less.version.images, less.deleted) == (12, 8)
        assert less.version.verticals == ("top",)
        hits = index.search(less.version, unit_vectors(12, seed=9)[3], 100, by_item=False)
        assert len(hits) == 12
        assert hits[0].image == moved[3]
        assert hits[0].distance < 1e-3

        one = [dataclasses.replace(some_images(31)[30], vertical="hat")]
        more = build_index(index, Version(A, DIM), iter([(one, unit_vectors(1, seed=8))]))
        assert (more.version.images, more.upserted, more.deleted) == (13, 1, 0)
        assert more.version.verticals == ("hat", "top")


def test_an_image_of_two_items_is_kept_once_with_a_warning_and_is_not_invalid(new_index, caplog):
    images = some_images(4)
    twice = dataclasses.replace(images[0], item="another")
    with open_index(new_index()) as index, caplog.at_level("WARNING"):
        rows = iter([([*images, twice], unit_vectors(5))])
        done = build_index(index, Version(A, DIM), rows, expected=6)
        kept = index.find(done.version, [twice.key])[0][0]

    assert (done.version.images, done.invalid) == (4, 1)
    assert kept.item == "another"
    assert "1 row has the image and box of another row" in caplog.text


def test_only_the_named_images_and_items_are_removed(new_index):
    with open_index(new_index()) as index:
        rows = iter([(some_images(20, ("bag", "hat")), unit_vectors(20))])
        version = build_index(index, Version(A, DIM), rows).version
        keys = named_keys(index, version, [f"{7:032x}", "9.jpg"], ["item4", "item0"])
        assert [int(key, 16) for key in keys] == [0, 1, 2, 7, 9, 12, 13, 14]
        for images, items, message in (
            (["9.jpg", "nowhere.jpg"], [], "no image 'nowhere.jpg'"),
            ([], ["item1", 'x" or item != "'], "no item 'x\" or item != \"'"),
        ):
            with pytest.raises(UserError, match=message):
                named_keys(index, version, images, items)
        assert remove_images(index, version, keys).images == 12
        assert sorted(int(key, 16) for key in index.keys(version)) == [
            *range(3, 7),
            8,
            10,
            11,
            *range(15, 20),
        ]
        with pytest.raises(UserError, match="all 12 images would be removed"):
            remove_images(index, index.current(), list(index.keys(version)))


def test_versions_coexist_and_only_a_complete_one_answers(new_index):
    path = new_index()
    with open_index(path) as index:
        assert index.current() is None
        build_index(index, Version(A, DIM), iter([(some_images(5), unit_vectors(5))]))
        other = index.begin(Version(B, 4))
        index.upsert(other, some_images(3), unit_vectors(3, 4))
        with pytest.raises(UserError, match=f"no complete version of model {B[:16]}"):
            index.switch(other)
        assert index.current().model == A
    with open_index(path) as index:
        assert [index.version(one).complete for one in (A, B)] == [True, False]
        rows = iter([(some_images(3), unit_vectors(3, 4))])
        other = build_index(index, Version(B, 4), rows, switch=False).version
        assert index.current().model == A
        index.switch(other)
        assert (index.current().model, index.current().images) == (B, 3)
        assert index.version("c" * 64) is None


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from search_images import some_images, unit_vectors
from apparel_embed.search.build import build_index, named_keys, remove_images
from apparel_embed.search.index import open_index
from apparel_embed.search.index import Version

def rows():
    images, embeddings = some_images(20_000), unit_vectors(20_000)
    for start in range(0, 20_000, 200):
        print(start, flush=True)
        yield images[start : start + 200], embeddings[start : start + 200]

with open_index(sys.argv[1]) as index:
    build_index(index, Version("b" * 64, 8), rows())
"""


@pytest.mark.slow
def test_a_build_killed_while_writing_leaves_a_consistent_index(request, new_index):
    path = new_index()
    with open_index(path) as index:
        build_index(index, Version(A, DIM), iter([(some_images(30), unit_vectors(30))]))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, str(request.path.parents[1])],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if int(line) >= 1000:
            break
    process.kill()
    process.wait()
    process.stdout.close()

    with open_index(path) as index:
        assert (index.current().model, index.current().images) == (A, 30)
        assert len(index.search(index.current(), unit_vectors(1)[0], 100, by_item=False)) == 30
        broken = index.version(B)
        assert not broken.complete
        keys = sorted(index.keys(broken))
        assert len(keys) == len(set(keys)) >= 800
        embeddings = unit_vectors(20_000)
        for key in keys[:: len(keys) // 20]:
            ((image, stored),) = index.find(broken, [key])
            assert image == some_images(int(key, 16) + 1)[-1]
            np.testing.assert_array_equal(stored, embeddings[int(key, 16)])
        rows = iter([(some_images(50), embeddings[:50])])
        whole = build_index(index, Version(B, DIM), rows).version
        assert (index.current(), whole.images) == (whole, 50)


@pytest.mark.parametrize(
    ("images", "embeddings", "message"),
    [
        (some_images(2), unit_vectors(2) * [[1], [0]], "1.jpg: its embedding has length 0"),
        (
            some_images(2),
            unit_vectors(2) * [[1], [np.nan]],
            "1.jpg: its embedding has length nan",
        ),
        (some_images(2), unit_vectors(2, 5), r"shape \(2, 5\); expected \(2, 8\)"),
    ],
)
def test_invalid_embeddings_are_refused(index, filled, images, embeddings, message):
    with pytest.raises(UserError, match=message):
        index.upsert(filled, images, embeddings)


@pytest.fixture(scope="module", params=["FLAT", "IVF_FLAT", "HNSW"])
def uneven(request, new_index):
    """An index of 12 items with 1 to 72 images each, and 12 images without an item.

    Each item has its own direction, and each vertical three items.
    """
    random = np.random.default_rng(4)
    counts = [1, 2, 72, 24, 36, 8, 72, 3, 36, 24, 5, 72]
    items = np.repeat(np.arange(12), counts)
    centres = np.concatenate([unit_vectors(12, seed=6)[items], unit_vectors(12, seed=7)])
    embeddings = centres + 0.02 * random.normal(size=centres.shape)
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    names = [f"item{item}" for item in items] + [""] * 12
    numbers = [*items, *range(12)]
    images = [
        IndexedImage(f"{place:032x}", f"{place}.jpg", name, f"v{number % 4}")
        for place, (name, number) in enumerate(zip(names, numbers))
    ]
    version = Version(A, DIM, settings=IndexSettings(request.param, ivf_lists=16, ivf_probes=1))
    with open_index(new_index()) as index:
        version = build_index(index, version, iter([(images, embeddings)])).version
        yield index, version, images, embeddings


def exact_groups(query, images, embeddings, k, vertical=None):
    nearest_of = {}
    for place in exact(query, embeddings, len(embeddings))[0]:
        image = images[place]
        if vertical in (None, image.vertical):
            nearest_of.setdefault(image.item or image.key, image)
    return list(nearest_of.values())[:k]


@pytest.mark.parametrize("k", [1, 6, 24, 100])
@pytest.mark.parametrize("vertical", [None, "v2"])
def test_k_items_are_found_whatever_their_numbers_of_images(uneven, k, vertical):
    index, version, images, embeddings = uneven
    for query in (embeddings[0], embeddings[10], -embeddings[0]):
        hits = index.search(version, query, k, vertical=vertical)
        wanted = exact_groups(query, images, embeddings, k, vertical)
        assert len(hits) == len(wanted) == min(k, 24 if vertical is None else 6)
        # Any of the equally near images of an item may be returned; FLAT misses none.
        if version.settings.kind == "FLAT" or len(wanted) < k:
            assert [hit.image for hit in hits] == wanted


def test_several_verticals_are_searched_together_and_an_unknown_one_gives_nothing(uneven):
    index, version, images, _ = uneven
    query = unit_vectors(1, seed=3)[0]

    hits = index.search(version, query, 1000, vertical=("v1", "v3"), by_item=False)

    assert len(hits) == sum(one.vertical in ("v1", "v3") for one in images)
    assert index.search(version, query, 5, vertical="v9") == []


def test_open_readers_find_newly_added_images(new_index):
    path = new_index()
    with open_index(path) as index:
        build_index(index, Version(A, DIM), iter([(some_images(9), unit_vectors(9))]))
    with open_index(path, to_read=True) as read:
        version, query = read.current(), unit_vectors(1)[0]
        assert len(read.search(version, query, 99, by_item=False)) == 9
        moved = [dataclasses.replace(one, vertical="hat") for one in some_images(20)]
        with open_index(path) as index:
            build_index(index, Version(A, DIM), iter([(moved, unit_vectors(20))]))
        assert len(read.search(version, query, 99, by_item=False)) == 20
        assert len(read.search(version, query, 99, vertical="hat", by_item=False)) == 20
        assert read.search(version, query, 99, vertical="bag") == []


def test_an_index_can_be_searched_while_it_is_filled(new_index):
    path = new_index()
    with open_index(path) as index:
        before = build_index(index, Version(A, DIM), iter([(some_images(9), unit_vectors(9))]))
    query = unit_vectors(1, 4)[0]

    def rows(read):
        for start in range(0, 3000, 500):
            yield (
                some_images(3000)[start : start + 500],
                unit_vectors(3000, 4)[start : start + 500],
            )
            assert read.current() == before.version
            hits = read.search(before.version, unit_vectors(1)[0], 99, by_item=False)
            assert [hit.image for hit in hits[:1]] == some_images(1) and len(hits) == 9

    with open_index(path, to_read=True) as read:
        with open_index(path) as index:
            build_index(index, Version(B, 4), rows(read))
        assert read.current().model == B
        assert len(read.search(read.current(), query, 3000, by_item=False)) == 3000


def test_threads_can_search_concurrently(index, filled):
    queries = unit_vectors(40, seed=11)
    alone = [index.search(filled, query, 5) for query in queries]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda query: index.search(filled, query, 5), queries)) == alone
