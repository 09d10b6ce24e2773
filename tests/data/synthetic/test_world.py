"""The synthetic world: cues, distances between items, checks of settings."""

import dataclasses
import hashlib

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.synthetic.world import (
    CUES,
    OUTLINE,
    OUTLINES,
    PRINT,
    SyntheticConfig,
    identity_size,
    items_of,
    spread,
    stream,
    visible,
)

SMALL = SyntheticConfig(train_items=12, val_items=4, test_items=8)


def test_four_verticals_have_outline_and_four_have_print_as_cue():
    assert set(CUES) == set(OUTLINES)
    assert sorted(CUES.values()) == [OUTLINE] * 4 + [PRINT] * 4


@pytest.mark.parametrize("vertical", CUES)
def test_splits_have_the_requested_sizes_and_no_duplicate_items(vertical):
    items = items_of(SMALL, vertical)
    splits = [item.split for item in items]
    assert [splits.count(name) for name in ("train", "val", "test")] == [12, 4, 8]
    assert len({item.item_id for item in items}) == 24
    assert len({item.identity.tobytes() for item in items}) == 24


@pytest.mark.parametrize("vertical", CUES)
def test_unlabelled_items_come_last_and_do_not_change_the_others(vertical):
    labelled = items_of(SMALL, vertical)
    more = items_of(dataclasses.replace(SMALL, unlabelled_items=10), vertical)
    assert [item.split for item in more[24:]] == ["unlabelled"] * 10
    assert [item.item_id for item in more[24:]] == [f"{vertical}-{n:04d}" for n in range(24, 34)]
    for expected, found in zip(labelled, more):
        assert (expected.item_id, expected.split) == (found.item_id, found.split)
        np.testing.assert_array_equal(expected.identity, found.identity)
    # No unlabelled item looks like another item.
    points = visible(vertical, np.stack([item.identity for item in more]))
    gaps = np.linalg.norm(points[24:, None] - points[None], axis=-1)
    gaps[np.arange(10), np.arange(24, 34)] = np.inf
    assert gaps.min() > 0.4


@pytest.mark.parametrize(
    ("vertical", "expected"), [("dress", "984176c5a40a2b19"), ("bag", "2782a41631c7f9d6")]
)
def test_items_are_those_of_earlier_releases(vertical, expected):
    digest = hashlib.sha256()
    for item in items_of(SMALL, vertical):
        digest.update(f"{item.item_id} {item.vertical} {item.split} ".encode())
        digest.update(item.identity.tobytes())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize("vertical", CUES)
def test_items_are_farther_apart_than_random_ones(vertical):
    def closest(identities: np.ndarray) -> float:
        points = visible(vertical, identities)
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return gaps[np.triu_indices(len(points), 1)].min()

    kept = closest(np.stack([item.identity for item in items_of(SMALL, vertical)]))
    random = [
        closest(stream(trial, "random").random((24, identity_size(vertical))))
        for trial in range(20)
    ]
    assert kept > max(random)
    assert kept > 0.5


def test_spread_chooses_the_farthest_point_next():
    line = np.array([[0.0], [0.1], [1.0], [0.6], [0.5]])
    np.testing.assert_array_equal(spread(line, 3), [0, 2, 4])
    np.testing.assert_array_equal(spread(line, 2, before=np.array([[0.95], [0.2]])), [3, 0])
    assert len(spread(line, 0)) == 0


def test_streams_depend_on_every_part_of_their_name_only():
    assert stream(0, "bag", 1).integers(2**32) == stream(0, "bag", 1).integers(2**32)
    values = {
        int(stream(*name).integers(2**63))
        for name in [(0, "bag", 1), (1, "bag", 1), (0, "top", 1), (0, "bag", 2), (0, "bag")]
    }
    assert len(values) == 5
    # A fixed value: other machines and later releases must draw the same garments.
    digest = hashlib.sha256(stream(7, "dress", "items").bytes(64)).hexdigest()
    assert digest.startswith("8a9202b628b24b23")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1; expected a whole number, 0 to"),
        ({"train_items": -3}, "train_items is -3; expected a whole number, 0 to"),
        ({"test_items": 2.5}, "test_items is 2.5; expected a whole number"),
        (
            {"unlabelled_items": 2001},
            "unlabelled_items is 2001; expected a whole number, 0 to 2000",
        ),
        ({"train_items": 0, "unlabelled_items": 3}, "unlabelled_items=3 needs a specialist"),
        ({"val_items": True}, "val_items is True; expected a whole number"),
        ({"gallery_per_item": 0}, "gallery_per_item is 0; expected a whole number, 1 to"),
        ({"query_per_item": 0}, "query_per_item is 0; expected a whole number, 1 to"),
        ({"image_size": 8}, "image_size is 8; expected a whole number, 32 to 1024"),
        ({"scenes": -1}, "scenes is -1; expected a whole number, 0 to 200000"),
        ({"scenes": 200_001}, "scenes is 200001; expected a whole number, 0 to 200000"),
        ({"scene_size": 127}, "scene_size is 127; expected a whole number, 128 to 1024"),
        ({"scene_size": 1025}, "scene_size is 1025; expected a whole number, 128 to 1024"),
        ({"verticals": ()}, "verticals: none given; choose from dress"),
        ({"verticals": ("dress", "hat")}, "unknown 'hat'; choose from dress"),
        ({"verticals": ("dress", "dress")}, "dress,dress repeats a name"),
        ({"train_items": 0, "val_items": 0, "test_items": 0}, "all 0; set at least one"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(UserError, match=message):
        SyntheticConfig(**change)


@pytest.mark.parametrize("vertical", CUES)
def test_every_corner_of_the_outline_space_can_be_drawn_within_the_frame(vertical):
    outline = OUTLINES[vertical]
    rng = np.random.default_rng(0)
    for values in [
        *np.eye(2)[:, :1].repeat(len(outline.names), 1),
        *rng.integers(0, 2, (40, len(outline.names))),
    ]:
        parts = outline.parts(values)
        points = np.vstack([part.points for part in parts])
        assert np.isfinite(points).all()
        assert np.abs(points).max() <= 0.92 + 1e-9
        assert np.ptp(points, axis=0).max() == pytest.approx(1.84)
        assert parts[0].fill in ("body", "trim")


@pytest.mark.parametrize("vertical", CUES)
def test_every_outline_parameter_changes_what_is_drawn(vertical):
    outline = OUTLINES[vertical]

    def drawn(values: np.ndarray) -> bytes:
        parts = outline.parts(values)
        return b"".join(part.points.tobytes() + part.fill.encode() for part in parts)

    rng = np.random.default_rng(0)
    bases = rng.random((12, len(outline.names)))
    for place, name in enumerate(outline.names):
        pairs = []
        for base in bases:
            low, high = base.copy(), base.copy()
            low[place], high[place] = 0.0, 1.0
            pairs.append(drawn(low) != drawn(high))
        assert any(pairs), name
