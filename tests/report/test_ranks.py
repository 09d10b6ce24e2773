from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from report_runs import SILENT, is_drawn, make_dataset, make_run

from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import query_outcomes
from apparel_embed.report.ranks import (
    Hit,
    RankedQuery,
    RankList,
    chosen_queries,
    draw_rank_lists,
    ranks_section,
    worst_queries,
)

pytestmark = pytest.mark.slow


def metrics(precision, records=None):
    count = len(precision)
    records = np.arange(count) if records is None else np.array(records)
    items, chance = np.array(["x"] * count), np.full(count, 0.1)
    return QueryMetrics(records, items, {}, np.array(precision), chance, 0)


@pytest.mark.parametrize(
    ("precision", "records", "expected"),
    [
        ([0.5, 0.1, 0.9, 0.3, 0.7], None, [("good", 2), ("typical", 0), ("bad", 1)]),
        # Ties go to the smaller record number.
        ([1.0, 0.5, 1.0, 0.5], [9, 8, 7, 6], [("good", 2), ("typical", 1), ("bad", 3)]),
        ([0.2, 0.8], None, [("good", 1), ("typical and bad", 0)]),
        ([0.4], None, [("good and typical and bad", 0)]),
    ],
)
def test_good_typical_and_bad_are_the_best_the_median_and_the_worst(precision, records, expected):
    assert chosen_queries(metrics(precision, records)) == expected


@pytest.mark.parametrize(
    ("precision", "records", "positions"),
    [
        ([0.5, 0.1, 0.9, 0.3, 0.7, 0.8], None, [1, 3, 0, 4]),
        # Ties go to the smaller record number.
        ([0.5, 0.0, 0.0], [1, 9, 8], [2, 1, 0]),
        ([], None, []),
    ],
)
def test_the_worst_queries_have_the_lowest_precision_and_the_worst_is_first(
    precision, records, positions
):
    expected = [(f"worst {rank}", position) for rank, position in enumerate(positions, start=1)]
    assert worst_queries(metrics(precision, records)) == expected


def test_right_and_wrong_hits_agree_with_the_metrics(nasty_run):
    inputs = nasty_run.inputs()
    outcomes = {
        name: query_outcomes(inputs.embeddings[name], inputs.images)
        for name in ("unified", "specialists")
    }
    section = ranks_section(inputs)
    wrong = 0

    for part in section.parts:
        for query in part.queries:
            assert [found.model for found in query.lists] == ["unified", "specialists"]
            for found in query.lists:
                expected = outcomes[found.model].verticals[part.vertical]
                (at,) = np.flatnonzero(expected.records == query.record)
                right = [hit.right for hit in found.hits]
                assert right == [hit.item == query.item for hit in found.hits]
                assert right[0] == expected.recall[1][at]
                assert any(right[:5]) == expected.recall[5][at]
                assert found.average_precision == expected.average_precision_at_r[at]
                # The gallery has 9 or 12 images, and the query's own is never found.
                assert len(found.hits) == min(10, outcomes["unified"].gallery[part.vertical] - 1)
                wrong += not right[0]
    assert wrong


def test_every_vertical_with_an_answer_is_shown_and_the_others_are_named(nasty_run):
    section = ranks_section(nasty_run.inputs())

    verticals = [part.vertical for part in section.parts]
    assert verticals == [name for name in nasty_run.dataset.verticals if name != SILENT]
    assert f"Verticals without an answered query: {SILENT}." in section.caption
    assert all(is_drawn(part.png) for part in section.parts)
    (bags,) = [part for part in section.parts if part.vertical == "_bags"]
    assert "3 queries chosen from 12 with an answer" in bags.caption
    assert "12 gallery images" in bags.caption


def test_the_combined_model_comes_first_without_a_student(nasty_run, tmp_path):
    run = make_run(tmp_path / "run", nasty_run.dataset, student=False)
    section = ranks_section(run.inputs())

    found = section.parts[0].queries[0].lists
    assert [one.model for one in found] == ["combined", "specialists"]
    assert "average precision at R of combined" in section.caption


def test_a_single_query_is_shown_once_and_never_finds_itself(tmp_path):
    dataset = make_dataset(
        tmp_path / "data", [("a", "bags", 2), ("b", "bags", 1)], roles=("both", "gallery")
    )
    section = ranks_section(make_run(tmp_path / "run", dataset).inputs())

    # The query of item b has no other image of its item.
    (part,) = section.parts
    (query,) = part.queries
    assert query.label == "good and typical and bad"
    assert query.item == "a-test"
    assert "1 query chosen from 1 with an answer, searching 3 gallery images" in part.caption
    for found in query.lists:
        assert sorted(hit.item for hit in found.hits) == ["a-test", "b-test"]


def test_frames_are_green_for_right_hits_and_red_for_wrong_ones():
    buffer = io.BytesIO()
    Image.new("RGB", (72, 72), "white").save(buffer, "JPEG")
    grey = buffer.getvalue()

    def colours(right):
        hits = (Hit(grey, "a", right),)
        query = RankedQuery("good", grey, 0, "a", (RankList("unified", 1.0, hits),))
        png = draw_rank_lists("bags", [query])
        with Image.open(io.BytesIO(png)) as image:
            return {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}

    green, red = (0x1A, 0x8F, 0x4C), (0xC6, 0x28, 0x28)
    assert green in colours(True) and red not in colours(True)
    assert red in colours(False) and green not in colours(False)


def test_thumbnails_are_small_jpegs_of_one_size(nasty_run):
    query = ranks_section(nasty_run.inputs()).parts[0].queries[0]
    for content in (query.jpeg, *(hit.jpeg for hit in query.lists[0].hits)):
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size) == ("JPEG", (72, 72))
        assert len(content) < 8000
