import numpy as np
import pytest
from inspected import labels_of, pattern
from PIL import Image

from apparel_embed.data.images import ImageSettings
from apparel_embed.data.inspection.copies import (
    ACROSS_ITEMS,
    ACROSS_SPLITS,
    ANSWER,
    EXACT,
    NEAR,
    PAIR_CODES,
    RECOLOURED,
    WITHIN_ITEM,
    Copies,
    copy_findings,
    find_copies,
)
from apparel_embed.data.inspection.examine import LOOK, OPENED_SIDE, Opened, look_at

# The labels of two rows, and the expected pairs by relation.
RELATED = {
    "two splits": (
        ("a", "tops", "train", "both"),
        ("b", "tops", "test", "both"),
        {ACROSS_SPLITS: [(1, 0)]},
    ),
    "one selects weights, the other evaluates": (
        ("a", "tops", "test", "both"),
        ("b", "tops", "val", "both"),
        {ACROSS_SPLITS: [(0, 1)]},
    ),
    "unlabelled, which is also trained on": (
        ("", "tops", "unlabelled", "both"),
        ("b", "tops", "test", "both"),
        {ACROSS_SPLITS: [(1, 0)]},
    ),
    "two items": (
        ("a", "tops", "train", "both"),
        ("b", "bags", "train", "both"),
        {ACROSS_ITEMS: [(1, 0)]},
    ),
    "a query and its answer": (
        ("a", "tops", "test", "gallery"),
        ("a", "tops", "test", "query"),
        {ANSWER: [(1, 0)]},
    ),
    "each the other's answer": (
        ("a", "tops", "test", "both"),
        ("a", "tops", "test", "both"),
        {ANSWER: [(0, 1), (1, 0)]},
    ),
    "one training item": (
        ("a", "tops", "train", "query"),
        ("a", "tops", "train", "gallery"),
        {WITHIN_ITEM: [(1, 0)]},
    ),
    "two gallery images of an item": (
        ("a", "tops", "test", "gallery"),
        ("a", "tops", "test", "gallery"),
        {WITHIN_ITEM: [(1, 0)]},
    ),
    "no known item": (
        ("", "tops", "unlabelled", "both"),
        ("b", "tops", "train", "both"),
        {},
    ),
}
# A train row, which verticals with unlabelled rows need.
REST = ("rest", "tops", "train", "both")


@pytest.mark.parametrize("case", RELATED)
def test_relations_between_two_images(case, tmp_path):
    *rows, expected = RELATED[case]
    copies = Copies(labels_of(tmp_path, [*rows, REST]))
    copies.offer(EXACT, (np.array([0]), np.array([1])), np.array([0]))
    found = {
        relation: list(zip(*(ends.tolist() for ends in copies.pairs(EXACT, relation)[:2])))
        for relation in (ACROSS_SPLITS, ACROSS_ITEMS, ANSWER, WITHIN_ITEM)
    }
    assert {relation: pairs for relation, pairs in found.items() if pairs} == expected


def test_each_row_keeps_its_most_similar_copy(tmp_path):
    labels = labels_of(tmp_path, [(name, "tops", "train", "both") for name in "abcd"])
    copies = Copies(labels)
    copies.offer(NEAR, (np.array([0, 0, 2]), np.array([1, 2, 3])), np.array([7, 5, 9]))
    copies.offer(NEAR, (np.array([1, 3]), np.array([2, 0])), np.array([7, 9]))
    rows, others, scores = copies.pairs(NEAR, ACROSS_ITEMS)
    # 0 and 2 are each other's closest; 1 and 3 are equally close to two rows and keep the earlier.
    assert list(zip(rows.tolist(), others.tolist(), scores.tolist())) == [
        (1, 0, 7),
        (2, 0, 5),
        (3, 0, 9),
    ]


def looks(total):
    """Returns looks of images that all differ."""
    random = np.random.default_rng(0)
    found = np.zeros(total, LOOK)
    found["content"] = random.integers(0, 2**63, (total, 2))
    found["outlines"] = random.integers(0, 2**63, (total, 4))
    found["colours"] = random.integers(0, 256, (total, 8, 8, 3))
    found["contrast"] = 50
    return found


def found_in(labels, images, hash_distance=10, colour_distance=4, rows=None):
    copies = Copies(labels)
    opened = Opened(np.arange(len(images)) if rows is None else rows, images, {})
    assert find_copies(copies, opened, hash_distance, colour_distance) == 0
    return {finding.code: finding for finding in copy_findings(copies)}


def test_exact_near_and_recoloured_images_are_told_apart(tmp_path):
    labels = labels_of(tmp_path, [(name, "tops", "train", "both") for name in "abcdefgh"])
    images = looks(8)
    images["outlines"][1::2] = images["outlines"][::2]
    images["colours"][1::2] = images["colours"][::2]
    # 0 and 1 are the same file; 2 and 3 differ slightly, 4 and 5 in colour, 6 and 7 in outlines.
    images["content"][1] = images["content"][0]
    images["colours"][2:6, 0, 0, 0] = (100, 104, 100, 105)
    images["outlines"][3, 0] ^= np.uint64(0b1111111111)
    images["outlines"][7, 0] ^= np.uint64(0b11111111111)
    found = found_in(labels, images)
    assert {code: (one.rows.tolist(), one.others.tolist()) for code, one in found.items()} == {
        "exact_across_items": ([1], [0]),
        "near_across_items": ([3], [2]),
        "recoloured_across_items": ([5], [4]),
    }
    assert [one.severity for one in found.values()] == ["error", "warning", "note"]
    assert found["near_across_items"].count == 2
    assert found["near_across_items"].detail(0) == (
        "outlines differ in 10 of 256 bits, colours by 4 of 255"
    )
    assert found["exact_across_items"].what.startswith("2 images have an exact copy under")
    assert "near_across_items" not in found_in(labels, images, hash_distance=9)
    assert found_in(labels, images, colour_distance=3)["recoloured_across_items"].count == 4


def test_images_that_differ_only_in_fine_stripes_are_no_more_than_near_copies(tmp_path):
    labels = labels_of(
        tmp_path, [(name, "tops", split, "both") for name, split in (("a", "train"), ("b", "test"))]
    )
    cloth = np.asarray(pattern(0, (800, 800)), int).clip(40, 215)
    for name, axis in (("a.png", 0), ("b.png", 1)):
        stripes = np.where(np.indices((800, 800))[axis] % 2, 40, -40)[..., np.newaxis]
        Image.fromarray((cloth + stripes).astype(np.uint8)).save(tmp_path / name)
    settings = ImageSettings(max_side=OPENED_SIDE)
    seen = [look_at((name, None), tmp_path, settings) for name in ("a.png", "b.png")]
    found = found_in(labels, np.array(seen))
    assert {code: one.severity for code, one in found.items()} == {"near_across_splits": "warning"}
    assert "stripes" in found["near_across_splits"].advice


def test_blank_images_are_not_compared(tmp_path):
    labels = labels_of(tmp_path, [(name, "tops", "train", "both") for name in "ab"])
    same = looks(2)
    same[1] = same[0]
    assert set(found_in(labels, same)) == {"exact_across_items"}
    same["contrast"] = 2
    assert found_in(labels, same) == {}


def test_findings_name_manifest_rows_with_the_most_similar_first(tmp_path):
    labels = labels_of(
        tmp_path,
        [(str(number), "tops", "train" if number < 3 else "test", "both") for number in range(6)],
    )
    images = looks(4)
    images["outlines"][2:] = images["outlines"][:2]
    images["outlines"][2, 0] ^= np.uint64(1)
    images["colours"][2:] = images["colours"][:2]
    finding = found_in(labels, images, rows=np.array([0, 1, 4, 5]))["near_across_splits"]
    assert (finding.rows.tolist(), finding.others.tolist()) == ([5, 4], [1, 0])
    assert finding.severity == "warning"
    assert finding.what.startswith("2 images of val or test seem to have a near-copy among")


def test_pair_codes_are_known_and_crowded_hashes_are_reported(tmp_path):
    assert "exact_across_splits" in PAIR_CODES
    assert f"{RECOLOURED}_{WITHIN_ITEM}" not in PAIR_CODES
    copies = Copies(labels_of(tmp_path, [REST]))
    (crowd,) = copy_findings(copies, 1234)
    assert crowd.what.startswith("1,234 images with hashes that partly agree")
    assert not list(copy_findings(copies))
