"""Same item, or similar only: in the interface, the shell, the metrics and the page."""

import json
import shutil
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from search_page import MARKS, expect

from apparel_embed.common.errors import UserError
from apparel_embed.search.config import Limits, SearchSources
from apparel_embed.search.searcher import Searcher
from apparel_embed.search.server import make_service, open_searcher
from apparel_embed.search.shell import search_file, search_garments_of_file, table_of, tables_of

pytestmark = pytest.mark.slow
THRESHOLDS = {"0.01": {}, "0.05": {"bag": 2.0, "dress": 1e-6}, "0.1": {"ALL": 2.0}}


@pytest.fixture(scope="module")
def sources(catalogue, tmp_path_factory):
    """Makes the sources of a model that has thresholds: the index knows it by graph and weights."""
    copied = tmp_path_factory.mktemp("model") / "1"
    shutil.copytree(catalogue.saved_model, copied)
    (copied / "assets/absent_thresholds.json").write_text(json.dumps(THRESHOLDS))
    return lambda level="0.05": SearchSources(
        copied, catalogue.dataset.directory, false_accepts=level
    )


def ask(client, street, **fields):
    with open(street["bag"][0], "rb") as file:
        return client.post("/api/search", files={"file": file}, data=fields).json()


def test_the_answer_says_whether_it_is_the_same_item(catalogue, sources, street):
    with TestClient(make_service(catalogue.index, sources(), Limits(rate=0))) as client:
        found = [ask(client, street, vertical=name) for name in ("bag", "bag", "dress", "dress")]
        # No threshold could be fitted for a search in all.
        found.append(ask(client, street, all_verticals="true"))
        key = found[0]["hits"][0]["key"]
        found.append(client.get("/api/similar", params={"key": key}).json())
        lines = client.get("/metrics").text.splitlines()
    said = ["same item", "same item", *["similar only"] * 3, "same item"]
    assert [one["verdict"] for one in found] == said
    assert [line for line in lines if line.startswith("apparel_search_verdicts_total{")] == [
        'apparel_search_verdicts_total{verdict="same item",vertical="bag"} 3.0',
        'apparel_search_verdicts_total{verdict="similar only",vertical="dress"} 2.0',
        'apparel_search_verdicts_total{verdict="similar only",vertical="ALL"} 1.0',
    ]


@pytest.mark.parametrize(("level", "said"), [("0.01", "similar only"), ("0.1", "same item")])
def test_the_level_is_the_callers_and_the_shell_says_it(catalogue, sources, street, level, said):
    searcher, _ = open_searcher(catalogue.index, sources(level), Limits().max_pixels)
    found = search_file(searcher, Path(street["bag"][0]), 3, all_verticals=True)
    assert found.verdict == said
    assert f"in all verticals (as asked); {said}; prepare " in table_of(found)


def test_a_model_without_thresholds_says_nothing(catalogue, service, street):
    with TestClient(service()) as client:
        assert ask(client, street, vertical="bag")["verdict"] is None
        assert "verdicts_total{" not in client.get("/metrics").text
    sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)
    searcher, _ = open_searcher(catalogue.index, sources, Limits().max_pixels)
    table = table_of(search_file(searcher, Path(street["bag"][0]), 3, vertical="bag"))
    assert "in bag (as asked); prepare " in table


def test_broken_thresholds_are_told_by_file_and_level(catalogue, sources):
    copied = sources()
    path = copied.saved_model / "assets/absent_thresholds.json"
    for text in ('{"0.01": {}}', '{"0.05": [1]}', '{"0.05": {"bag": "near"}}', "no JSON", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"absent_thresholds\.json: .*0\.05"):
            open_searcher(catalogue.index, copied, Limits().max_pixels)
    path.write_text(json.dumps(THRESHOLDS))


def test_each_garment_of_a_photograph_has_its_verdict(detecting, scene, tmp_path):
    app = detecting()
    searcher = app.state.service.searcher
    app.state.service = service = type(app.state.service)(
        Searcher(
            searcher.index,
            searcher.version,
            searcher._model,
            searcher._settings,
            thresholds={"bag": 2.0},
        ),
        app.state.service.read_image,
        Limits(rate=0),
    )
    photograph, _ = scene
    with TestClient(app) as client:
        found = client.post("/api/search_garments", files={"file": photograph}).json()["garments"]
        client.post("/api/detect", files={"file": photograph})
        metrics = client.get("/metrics").text
    said = {(one["vertical"], one["verdict"]) for one in found}
    assert said == {("bag", "same item"), ("dress", "similar only")}
    assert 'apparel_search_verdicts_total{verdict="same item",vertical="bag"} 2.0' in metrics
    (tmp_path / "scene.png").write_bytes(photograph)
    shown = tables_of(search_garments_of_file(service.searcher, tmp_path / "scene.png", 3))
    assert shown.count("); same item") == shown.count("); similar only") == 2


class TestPage:
    """The page in a real browser."""

    pytestmark = MARKS

    def test_the_page_says_it_in_words(self, browser, served, catalogue, sources, street):
        address = served(make_service(catalogue.index, sources(), Limits(rate=0)))
        assert httpx.get(f"{address}/api/info").json()["verticals"] == ["bag", "dress"]
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#vertical option >> nth=0", state="attached")
        verdict = page.locator("#verdict")
        expect(verdict).to_be_hidden()
        page.set_input_files("#file", street["bag"][0])
        expect(verdict).to_have_text(
            "Similar only: no picture is near enough to be taken for this very garment."
        )
        page.select_option("#vertical", label="bag")
        expect(verdict).to_have_text(
            "Same item: the nearest picture is taken for this very garment."
        )
        assert verdict.get_attribute("role") == "status"
        page.close()
