from __future__ import annotations

import base64
import re

import pytest
from report_runs import NASTY, Page, is_drawn, make_dataset, make_run

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings, write_embeddings
from apparel_embed.report.build import SECTIONS, write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(nasty_run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    result = write_report(nasty_run.inputs(), directory)
    return directory, result, (directory / "index.html").read_text("utf-8")


def test_the_page_needs_no_other_file_network_or_script(written):
    _, _, text = written

    for link in ("http://", "https://", 'src="/', "src='", "@import", "url(", "<link", "<script"):
        assert link not in text
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "link")
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    assert len(text) < 4e6


def test_names_from_the_manifest_are_escaped(written, nasty_run):
    _, _, text = written
    page = Page(text)

    assert NASTY not in text
    assert NASTY in page.text
    # The name is complete in tables, rank lists and trainings.
    assert [NASTY] in [row[:1] for row in page.tables[1]]
    assert NASTY in [row[0] for row in page.tables[-1]]
    titles = [attributes["title"] for tag, attributes in page.tags if "title" in attributes]
    assert any(f"item {NASTY}0-test" in title for title in titles)


def test_the_page_has_the_tables_of_the_sections(written, nasty_run):
    _, _, text = written
    expected = [
        part for make in SECTIONS for part in make(nasty_run.inputs()).parts if part.kind == "table"
    ]

    found = Page(text).tables
    assert [table[0] for table in found] == [list(part.header) for part in expected]
    assert [table[1:] for table in found] == [[list(row) for row in p.rows] for p in expected]


def test_every_figure_is_a_png_file_with_the_same_content_as_in_the_page(written):
    directory, result, text = written

    assert sorted(path.name for path in directory.glob("*.png")) == sorted(result["figures"])
    assert {"gap.png", "map.png", "losses.png", "validation.png"} <= set(result["figures"])
    assert all(is_drawn((directory / name).read_bytes()) for name in result["figures"])
    embedded = re.findall('"data:image/png;base64,([^"]+)"', text)
    assert [base64.b64decode(one) for one in embedded] == [
        (directory / name).read_bytes() for name in result["figures"] if "ranks" not in name
    ]


def test_the_frames_in_the_page_match_the_rank_lists(written, nasty_run):
    _, _, text = written
    ranks = next(s for s in (make(nasty_run.inputs()) for make in SECTIONS) if s.name == "ranks")
    expected = [
        "right" if hit.right else "wrong"
        for part in ranks.parts
        for query in part.queries
        for found in query.lists
        for hit in found.hits
    ]

    classes = [attributes.get("class") for tag, attributes in Page(text).tags if tag == "li"]
    assert classes == expected
    assert {"right", "wrong"} == set(expected)


def test_the_same_inputs_give_the_same_report(written, nasty_run, tmp_path):
    directory, result, _ = written
    assert write_report(nasty_run.inputs(), tmp_path) == result

    for name in ("index.html", *result["figures"]):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes(), name


def test_a_run_with_one_vertical_and_one_query_is_reported(tmp_path):
    dataset = make_dataset(tmp_path / "data", [("a", "bags", 2)], roles=("query", "gallery"))
    run = make_run(tmp_path / "run", dataset)
    result = write_report(run.inputs(), tmp_path / "report")

    assert result["sections"] == [
        "gap",
        "cost",
        "detection",
        "absent",
        "compression",
        "curve",
        "teachers",
        "ranks",
        "map",
        "trainings",
    ]
    # Two images are too few for a map.
    assert "map.png" not in result["figures"]
    assert "No map" in (tmp_path / "report/index.html").read_text()


def test_embeddings_of_other_images_are_refused(nasty_run, tmp_path):
    run = make_run(tmp_path / "run", nasty_run.dataset)
    path = run.evaluation.directory / "embeddings/unified.parquet"
    records, embeddings = read_embeddings(path)
    write_embeddings(path, records[1:], embeddings[1:])

    with pytest.raises(UserError, match=r"unified\.parquet: expected the 35 records .* got 34"):
        run.inputs()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("[]", "not the"), ('{"rows": [], "comparisons": []}', "no rows")],
)
def test_errors_name_a_broken_summary(nasty_run, tmp_path, content, message):
    run = make_run(tmp_path / "run", nasty_run.dataset)
    path = run.evaluation.directory / "summary.json"
    path.unlink()
    if content:
        path.write_text(content)

    with pytest.raises(UserError, match=rf"summary\.json: .*{message}"):
        run.inputs()
