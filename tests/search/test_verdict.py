"""Verdicts (same item, or similar only) in the interface, the shell and the metrics."""

import dataclasses
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from apparel_embed.common.errors import UserError
from apparel_embed.search.config import Limits, SearchSources
from apparel_embed.search.server import make_service, open_searcher
from apparel_embed.search.shell import search_files, search_garments_of_file, table_of, tables_of

pytestmark = pytest.mark.slow


def search(client, street, **fields):
    with open(street["bag"][0], "rb") as file:
        return client.post("/api/search", files={"file": file}, data=fields).json()


def test_the_answer_says_whether_it_is_the_same_item(catalogue, judging, street):
    with TestClient(make_service(catalogue.index, judging(), Limits(rate=0))) as client:
        found = [search(client, street, vertical=name) for name in ("bag", "bag", "dress", "dress")]
        # No threshold could be fitted for a search in all verticals.
        found.append(search(client, street, all_verticals="true"))
        key = found[0]["hits"][0]["key"]
        found.append(client.get("/api/similar", params={"key": key}).json())
        lines = client.get("/metrics").text.splitlines()
    verdicts = ["same item", "same item", "similar only", "similar only", None, "same item"]
    assert [one["verdict"] for one in found] == verdicts
    assert [line for line in lines if line.startswith("apparel_search_verdicts_total{")] == [
        'apparel_search_verdicts_total{verdict="same item",vertical="bag"} 3.0',
        'apparel_search_verdicts_total{verdict="similar only",vertical="dress"} 2.0',
    ]


@pytest.mark.parametrize(("level", "verdict"), [("0.01", None), ("0.1", "same item")])
def test_the_caller_chooses_the_level_and_the_shell_prints_the_verdict(
    catalogue, judging, street, caplog, level, verdict
):
    searcher, _ = open_searcher(catalogue.index, judging(level), Limits().max_pixels)
    found = search_files(searcher, [Path(street["bag"][0])], 3, all_verticals=True)
    assert found.verdict == verdict
    shown = f"{verdict}; prepare " if verdict else "prepare "
    assert f"in all verticals (as requested); {shown}" in table_of(found)
    verticals = ("bag", "dress", "ALL") if level == "0.01" else ("bag", "dress")
    needed = {"0.01": 99, "0.1": 9}[level]
    assert (
        f"no verdicts for {', '.join(verticals)}: --false_accepts={level} needs {needed} items of "
        "split val" in caplog.text
    )


def test_a_model_without_thresholds_gives_no_verdict(catalogue, service, street, caplog):
    with TestClient(service()) as client:
        assert search(client, street, vertical="bag")["verdict"] is None
        assert "verdicts_total{" not in client.get("/metrics").text
    sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)
    searcher, _ = open_searcher(catalogue.index, sources, Limits().max_pixels)
    table = table_of(search_files(searcher, [Path(street["bag"][0])], 3, vertical="bag"))
    assert "in bag (as requested); prepare " in table
    assert "no verdicts: the SavedModel was exported before" in caplog.text


def test_a_search_by_several_images_has_no_verdict(catalogue, judging, street):
    searcher, _ = open_searcher(catalogue.index, judging(), Limits().max_pixels)
    image = Path(street["bag"][0]).read_bytes()
    assert searcher.search_bytes([image], 1, vertical="bag").verdict == "same item"
    assert searcher.search_bytes([image, image], 1, vertical="bag").verdict is None


def test_an_index_by_item_has_no_verdicts(catalogue, judging, monkeypatch):
    version = catalogue.index.current()
    by_item = dataclasses.replace(version.settings, index_by="item")
    by_item = dataclasses.replace(version, settings=by_item)
    monkeypatch.setattr("apparel_embed.search.server.answering_version", lambda *_: by_item)
    searcher, _ = open_searcher(catalogue.index, judging(), Limits().max_pixels)
    key = next(iter(catalogue.index.keys(version)))
    assert searcher.search_key(key, 1).verdict is None


def test_errors_about_invalid_thresholds_name_file_and_level(catalogue, judging):
    copied = judging()
    path = copied.saved_model / "assets/absent_thresholds.json"
    thresholds = path.read_text()
    for text in ('{"0.01": {}}', '{"0.05": [1]}', '{"0.05": {"bag": "near"}}', "no JSON", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"absent_thresholds\.json: .*0\.05"):
            open_searcher(catalogue.index, copied, Limits().max_pixels)
    path.write_text(thresholds)


def test_each_garment_of_a_photograph_has_its_verdict(detecting, scene, tmp_path, monkeypatch):
    app = detecting()
    searcher = app.state.service.searcher
    monkeypatch.setattr(searcher, "_thresholds", {"bag": 2.0, "dress": 1e-6})
    photograph, _ = scene
    with TestClient(app) as client:
        found = client.post("/api/search_garments", files={"file": photograph}).json()["garments"]
        client.post("/api/detect", files={"file": photograph})
        metrics = client.get("/metrics").text
    verdicts = {(one["vertical"], one["verdict"]) for one in found}
    assert verdicts == {("bag", "same item"), ("dress", "similar only")}
    assert 'apparel_search_verdicts_total{verdict="same item",vertical="bag"} 2.0' in metrics
    (tmp_path / "scene.png").write_bytes(photograph)
    shown = tables_of(search_garments_of_file(searcher, tmp_path / "scene.png", 3))
    assert shown.count("); same item") == shown.count("); similar only") == 2
