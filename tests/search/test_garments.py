"""Detection and search of the garments in a photograph, by the service and the shell."""

from pathlib import Path

import numpy as np
import pytest
from detecting_model import BOX, SCORES, VERTICALS, QuarterModel, quarter, scene_of
from fastapi.testclient import TestClient
from PIL import Image
from serving_models import colour_detector, encoded, photograph, tiny_model
from tiny_run import run_tool

from apparel_embed.common.errors import UserError
from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource, Limits, SearchSources
from apparel_embed.search.index import IndexSettings, open_index
from apparel_embed.search.searcher import Searcher
from apparel_embed.search.server import make_service
from apparel_embed.search.shell import search_garments_of_file, tables_of
from apparel_embed.serving.embeddings import Garments
from apparel_embed.serving.saved_model import ExportConfig, export_saved_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROUTES = ("/api/detect", "/api/search_garments")


@pytest.fixture(scope="module")
def client(detecting):
    with TestClient(detecting(), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def searcher(client):
    return client.app.state.service.searcher


def send(client, photograph, route="/api/search_garments", **fields):
    return client.post(route, files={"file": ("street.png", photograph)}, data=fields)


BLANK = encoded(Image.new("RGB", (60, 40), "white"), "PNG")


def test_the_garments_of_a_photograph_are_returned(client, scene):
    photograph, _ = scene
    found = send(client, photograph, "/api/detect").json()

    assert (found["width"], found["height"]) == (384, 384)
    assert [one["box"] for one in found["garments"]] == [list(quarter(n, BOX)) for n in range(4)]
    assert [one["vertical"] for one in found["garments"]] == list(VERTICALS)
    np.testing.assert_allclose([one["score"] for one in found["garments"]], SCORES, atol=1e-4)
    assert set(found["milliseconds"]) == {"prepare", "detect", "search", "total"}
    assert client.get("/api/info").json()["detects"] is True


def test_each_garment_finds_its_item_in_its_vertical(client, scene):
    photograph, items = scene
    found = send(client, photograph, k="3").json()["garments"]

    assert [one["hits"][0]["item"] for one in found] == items
    for garment in found:
        assert {hit["vertical"] for hit in garment["hits"]} == {garment["vertical"]}
        assert garment["searched"] == garment["vertical"]
        assert len(garment["hits"]) == 3
    assert [one["why"] for one in found] == [f"detected, {score:.0%}" for score in SCORES]
    # As the page does it: the returned box, in its vertical.
    box, vertical = ",".join(map(str, found[2]["box"])), found[2]["vertical"]
    boxed = send(client, photograph, "/api/search", box=box, vertical=vertical, k="3").json()
    assert boxed["hits"][0]["item"] == items[2]

    everywhere = send(client, photograph, all_verticals="true", k="100").json()["garments"]
    assert {(one["searched"], one["why"]) for one in everywhere} == {(None, "as requested")}
    assert {hit["vertical"] for hit in everywhere[0]["hits"]} == {"bag", "dress"}


@pytest.mark.parametrize("route", ROUTES)
def test_an_image_without_garments_gives_an_empty_list(client, route):
    answer = send(client, BLANK, route)

    assert (answer.status_code, answer.json()["garments"]) == (200, [])
    assert (answer.json()["width"], answer.json()["height"]) == (60, 40)


def test_boxes_are_in_pixels_of_the_upright_image_of_any_size(client):
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    image = Image.fromarray(noise).resize((2000, 1500), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotated by 90 degrees.
    found = send(client, encoded(image, "JPEG", exif=exif), "/api/detect").json()

    assert (found["width"], found["height"]) == (1500, 2000)
    x_min, y_min, x_max, y_max = quarter(3, BOX)
    box = [x_min * 1500 / 384, y_min * 2000 / 384, x_max * 1500 / 384, y_max * 2000 / 384]
    assert found["garments"][3]["box"] == pytest.approx(box, abs=0.01)


class _Fixed(QuarterModel):
    """Detects one garment of a fixed vertical."""

    def __init__(self, model, vertical, valid=True):
        self._model, self._vertical, self._valid = model, vertical, valid

    verticals = ("bag",)

    def embed(self, images):
        return self._model.embed(images)

    def detect(self, images):
        garment = np.array([[0, 0, 1, 1]], np.float32), np.array([0.5], np.float32)
        embeddings = self._model.embed([encoded(Image.new("RGB", (9, 9)))]).embeddings
        return [Garments(*garment, (self._vertical,), embeddings, self._valid)]


@pytest.mark.parametrize(
    ("vertical", "searched", "why", "verticals"),
    [
        # "dress" is in the index, and unknown to the model.
        ("bag", "bag", "detected, 50%", {"bag", "dress"}),
        ("hat", None, "the index has no hat", {"bag", "dress"}),
    ],
)
def test_verticals_unknown_to_the_index_or_the_model(searcher, vertical, searched, why, verticals):
    model = _Fixed(searcher._model, vertical)
    one = Searcher(searcher.index, searcher.version, model)
    (garment,) = one.detect(BLANK, k=100).garments

    assert (garment.box, garment.found.vertical, garment.found.why) == (
        (0, 0, 60, 40),
        searched,
        why,
    )
    assert {hit.image.vertical for hit in garment.found.hits} == verticals


def test_an_image_the_model_cannot_read_is_refused(client, searcher, monkeypatch):
    monkeypatch.setattr(searcher, "_model", _Fixed(searcher._model, "bag", valid=False))
    answer = send(client, BLANK, "/api/detect")

    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "the model could not read this image",
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("photograph", "status", "message"),
    [
        (b"", 422, "empty file"),
        (b"this is not an image", 422, "not an image"),
        (BLANK[:-30], 422, "truncated"),
        (b"0" * 1_000_000, 413, "the image is too large; expected at most 0.4 MB"),
        (b"0" * 400_001, 413, "the image is too large; expected at most 0.4 MB"),
    ],
)
def test_an_unusable_image_is_refused(client, route, photograph, status, message):
    answer = send(client, photograph, route)

    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_an_invalid_parameter_is_refused_by_name(client):
    for name, value in (("k", "0"), ("k", "101"), ("all_verticals", "perhaps")):
        answer = send(client, BLANK, **{name: value})
        assert (answer.status_code, answer.json()["detail"][: len(name) + 1]) == (422, f"{name}:")


def test_the_limits_of_searches_apply(detecting):
    with TestClient(detecting(max_pixels=1000, api_key="sesame", rate=0.01, burst=3)) as client:
        refused = send(client, BLANK, "/api/detect")
        client.headers["X-API-Key"] = "sesame"
        pixels = send(client, BLANK, "/api/detect")
        answers = [send(client, encoded(Image.new("RGB", (9, 9))), route) for route in ROUTES * 2]

    assert refused.status_code == 401
    assert (pixels.status_code, pixels.json()["detail"]) == (
        422,
        "60x40 pixels are more than the 1000 allowed",
    )
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]


@pytest.mark.parametrize("route", ROUTES)
def test_a_model_without_a_detector_gives_404(service, route):
    with TestClient(service()) as client:
        answer = send(client, BLANK, route)
        info = client.get("/api/info").json()

    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "the model was exported without a detector",
    )
    assert info["detects"] is False


def test_detections_are_documented_counted_and_logged(client, scene, caplog):
    paths = client.get("/openapi.json").json()["paths"]
    for route in ROUTES:
        assert {"200", "401", "404", "413", "422", "429", "503"} <= set(
            paths[route]["post"]["responses"]
        )
    with caplog.at_level("INFO", "apparel_embed.search"):
        send(client, scene[0], "/api/detect")
    (logged,) = (record.about for record in caplog.records if hasattr(record, "about"))
    metrics = client.get("/metrics").text

    assert (logged["path"], logged["status"], logged["garments"]) == ("/api/detect", 200, 4)
    assert 'apparel_search_requests_total{route="/api/detect",status="200"}' in metrics
    assert 'apparel_search_step_seconds_count{step="detect"}' in metrics


def test_the_shell_prints_a_table_for_each_garment(searcher, scene, tmp_path):
    photograph, items = scene
    (tmp_path / "street.png").write_bytes(photograph)
    (tmp_path / "blank.png").write_bytes(BLANK)
    (tmp_path / "bad.png").write_bytes(b"not an image")
    lines = tables_of(search_garments_of_file(searcher, tmp_path / "street.png", 2)).splitlines()
    headings = [line for line in lines if line.startswith("garment ")]

    assert headings[0] == "garment 1: bag, 93%, --box=36,36,156,156; in bag (detected, 93%)"
    assert len(headings) == 4
    assert [line.split()[1] for line in lines if line.split()[:1] == ["1"]] == items
    assert lines[-1].startswith("prepare ")
    everywhere = search_garments_of_file(searcher, tmp_path / "street.png", 2, all_verticals=True)
    assert "; in all verticals (as requested)" in tables_of(everywhere)
    nothing = tables_of(search_garments_of_file(searcher, tmp_path / "blank.png", 2))
    assert nothing.startswith("no garment found; pass a box with --box")
    with pytest.raises(UserError, match=r"bad\.png: not an image"):
        search_garments_of_file(searcher, tmp_path / "bad.png", 2)


def test_a_photograph_of_one_garment_gives_one_garment(client, clearest):
    found = send(client, scene_of([clearest["bag"][0][0]])).json()["garments"]

    assert [one["hits"][0]["item"] for one in found] == [clearest["bag"][0][1]]


@pytest.mark.parametrize("flag", ["--box=1,2,3,4", "--vertical=bag"])
def test_the_shell_refuses_a_box_or_vertical_with_detect(tmp_path, flag):
    given = [f"--run_dir={tmp_path}", "--image=street.jpg", "--detect", flag]
    done = run_tool("search.py", *given)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "search.py: --detect finds boxes and verticals itself; remove --box and --vertical"
    )


@pytest.fixture(scope="module")
def exported(catalogue, new_index, tmp_path_factory):
    """A service with an exported model whose detector finds garments of a single colour."""
    saved_model = tmp_path_factory.mktemp("exported") / "1"
    export_saved_model(
        tiny_model(), saved_model, ExportConfig(warm_up=False), detector=colour_detector()
    )
    prepared = catalogue.dataset.directory
    with open_index(new_index()) as index:
        fill_index(index, IndexSource(saved_model, prepared), IndexSettings())
        app = make_service(index, SearchSources(saved_model, prepared), Limits(rate=0))
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


def test_an_exported_detector_finds_the_garments_of_a_rotated_photograph(exported):
    boxes = {0: (20, 10, 70, 60), 1: (100, 40, 160, 110), 2: (20, 100, 60, 140)}
    turned = photograph(boxes).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = send(exported, encoded(turned, "JPEG", exif=exif, quality=95), k="2").json()

    assert (found["width"], found["height"]) == (200, 150)
    assert [one["vertical"] for one in found["garments"]] == ["bag", "Köpfe, Hüte", "dress"]
    for garment, vertical in zip(found["garments"], (0, 2, 1)):
        np.testing.assert_allclose(garment["box"], boxes[vertical], atol=4)
        assert len(garment["hits"]) == 2
    assert [one["searched"] for one in found["garments"]] == ["bag", None, "dress"]
    assert found["garments"][1]["why"] == "the index has no Köpfe, Hüte"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_an_exported_detector_accepts_images_of_any_format(exported, kind):
    answer = send(exported, encoded(photograph({0: (20, 10, 70, 60)}), kind), "/api/detect")

    assert [one["vertical"] for one in answer.json()["garments"]] == ["bag"]
    assert send(exported, encoded(photograph({}), kind), "/api/detect").json()["garments"] == []
