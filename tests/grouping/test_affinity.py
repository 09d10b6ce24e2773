import dataclasses

import numpy as np
import pytest
from fake_trainer import outcomes_of

from apparel_embed.grouping.affinity import clusters, members, transfer_affinity
from apparel_embed.grouping.trials import Trial

FLOOR = 0.2


def affinity_of(recalls, floor=FLOOR, silent=()):
    """Returns the affinity of verticals a, b, ...

    Args:
      recalls: R@1 in each vertical (column) with the specialist of each vertical (row).
      floor: R@1 of an untrained model.
      silent: verticals without validation queries.
    """
    names = "abcdef"[: len(recalls)]

    def outcomes(row):
        heard = outcomes_of(dict(zip(names, row)), items=100)
        silence = outcomes_of(dict.fromkeys(silent, 0.0), items=0)
        return dataclasses.replace(heard, verticals={**heard.verticals, **silence.verticals})

    own = {v: Trial((v,), "", outcomes(row), 1, 1.0) for v, row in zip(names, recalls)}
    return transfer_affinity(tuple(names), own, outcomes([floor] * len(names)))


def clusters_of(affinity, threshold):
    affinity = np.array(affinity)
    names = "abcdef"[: len(affinity)]
    return ["".join(members(node, names)) for node in clusters(names, affinity, threshold)]


def test_affinity_is_the_mean_share_of_the_gain_kept_with_the_other_specialist():
    found = affinity_of([[0.8, 0.6, 0.2], [0.5, 1.0, 0.4], [0.2, 0.1, 0.6]])

    # The specialists' gains in their own verticals are 0.6, 0.8, 0.4. One way, row to column:
    #   a: -            0.4 / 0.8    0.0 / 0.4
    #   b: 0.3 / 0.6    -            0.2 / 0.4
    #   c: 0.0 / 0.6    -0.1 / 0.8   -
    expected = [[1, 0.5, 0], [0.5, 1, (0.5 - 0.125) / 2], [0, (0.5 - 0.125) / 2, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_one_way_affinities_are_clipped_to_minus_one_and_one():
    # b's specialist lowers a by more than a's own raises it, and raises c by more than c's own.
    found = affinity_of([[0.6, 0.5, 0.5], [0.0, 0.8, 1.0], [0.5, 0.5, 0.6]], floor=0.5)

    assert found[0, 1] == pytest.approx((-1 + 0) / 2)
    assert found[1, 2] == pytest.approx((1 + 0) / 2)
    both = affinity_of([[0.6, 0.0], [0.0, 0.6]], floor=0.5)
    assert both[0, 1] == -1


SPOILS = [[0.8, 0.8, 0.2], [0.8, 0.8, 0.2], [0.8, 0.8, 0.2]]
"""The specialist of vertical c works for a and b, but not for c."""


@pytest.mark.parametrize("silent", [(), ("c",)])
def test_a_vertical_without_a_gain_has_no_affinity_in_either_direction(silent):
    # Its own specialist has gained nothing, or there is no query to show a gain.
    found = affinity_of(SPOILS, silent=silent)

    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12)
    assert clusters_of(found, 0.1) == ["ab", "c"]


def test_a_vertical_whose_own_specialist_lowers_recall_has_no_affinity():
    found = affinity_of([[0.8, 0.5], [0.6, 0.1]])

    np.testing.assert_array_equal(found, np.eye(2))


def test_verticals_without_a_gain_have_no_affinity_to_each_other():
    np.testing.assert_array_equal(affinity_of([[0.2] * 3] * 3), np.eye(3))
    np.testing.assert_array_equal(affinity_of([[0.8] * 2] * 2, silent="ab"), np.eye(2))


def test_a_single_vertical_is_its_own_cluster():
    found = affinity_of([[0.8]])

    np.testing.assert_array_equal(found, [[1.0]])
    assert clusters_of(found, 1.0) == ["a"]


def test_clusters_are_split_if_the_mean_affinity_of_their_pairs_is_below_the_threshold():
    affinity = [
        [1.0, 0.9, 0.4, -0.2],
        [0.9, 1.0, 0.2, -0.2],
        [0.4, 0.2, 1.0, -0.2],
        [-0.2, -0.2, -0.2, 1.0],
    ]
    # a + b at 0.9; c joins at the mean of 0.4 and 0.2; d at -0.2.
    for threshold, expected in (
        (0.95, ["a", "b", "c", "d"]),
        (0.89, ["ab", "c", "d"]),
        (0.31, ["ab", "c", "d"]),
        (0.29, ["abc", "d"]),
        (0.0, ["abc", "d"]),
        (-0.21, ["abcd"]),
        (-1.0, ["abcd"]),
    ):
        assert clusters_of(affinity, threshold) == expected


def test_clusters_that_meet_the_threshold_exactly_are_joined():
    assert clusters_of([[1.0, 0.5], [0.5, 1.0]], 0.5) == ["ab"]


def test_clusters_are_in_the_order_of_their_first_vertical():
    affinity = np.eye(4)
    affinity[0, 3] = affinity[3, 0] = 0.3
    affinity[1, 2] = affinity[2, 1] = 0.8

    assert clusters_of(affinity, 0.2) == ["ad", "bc"]
