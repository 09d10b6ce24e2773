import io
import json
import shutil

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from search_requests import encoded, search, street_images

from apparel_embed.common.errors import UserError
from apparel_embed.data.images import ImageSettings, prepare_image
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexedImage, IndexSettings, open_index
from apparel_embed.search.limits import Limits
from apparel_embed.search.searcher import Searcher
from apparel_embed.search.server import SearchSources, make_service, open_searcher
from apparel_embed.search.shell import search_files, table_of
from apparel_embed.search.source import GALLERY
from apparel_embed.serving.errors import ModelNotFound
from apparel_embed.serving.local import LocalModel

pytestmark = pytest.mark.slow


def test_hits_equal_those_of_an_exact_search(client, catalogue):
    dataset, model = catalogue.dataset, LocalModel(catalogue.saved_model)
    gallery = dataset.select(verticals=["dress"], roles=GALLERY)
    embeddings = model.embed(dataset.read_images(gallery)).embeddings
    items = dataset.column("item_id")
    records, images = street_images(catalogue, "dress")
    queries = model.embed(images).embeddings
    places, distances = nearest(queries, embeddings, len(gallery), records, gallery)
    for query in range(3):
        expected = {}
        for place, distance in zip(places[query], distances[query]):
            expected.setdefault(items[gallery[place]], distance)
        answer = search(client, images[query], vertical="dress", k="5").json()
        assert [hit["item"] for hit in answer["hits"]] == list(expected)[:5]
        # The service encodes every image again.
        np.testing.assert_allclose(
            [hit["distance"] for hit in answer["hits"]], list(expected.values())[:5], atol=0.05
        )


def test_the_vertical_is_predicted_or_given_or_all(client, catalogue):
    _, (image, *_) = street_images(catalogue, "dress")

    predicted = search(client, image, all_verticals="false").json()
    given = search(client, image, vertical="dress").json()
    everything = search(client, image, k="100").json()

    assert (predicted["vertical"], predicted["predicted"]) == ("bag", True)
    assert [one["vertical"] for one in predicted["scores"]] == ["bag", "dress"]
    assert predicted["scores"][0]["score"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)
    assert (given["vertical"], given["predicted"]) == ("dress", False)
    assert {hit["vertical"] for hit in given["hits"]} == {"dress"}
    assert (everything["vertical"], everything["predicted"]) == (None, False)
    assert predicted["why"] == "predicted, 88%"
    assert given["why"] == "as requested"
    assert everything["why"] == "the model predicts bag, 88.1%; predictions are not used"
    assert client.get("/api/info").json()["routing_confidence"] is None
    assert everything["scores"] == predicted["scores"]
    assert {hit["vertical"] for hit in everything["hits"]} == {"bag", "dress"}
    assert len({hit["item"] for hit in everything["hits"]}) == len(everything["hits"]) == 20


@pytest.mark.parametrize(
    ("confidence", "all_verticals", "vertical", "why"),
    [
        ("0.88", None, "bag", "predicted, 88%"),
        ("0.89", None, None, "the model predicts bag, 88.1%; used from 89.0% on"),
        ("1.0", "", None, "the model predicts bag, 88.1%; used from 100.0% on"),
        ("0.0", "true", None, "as requested"),
        ("0.89", "false", "bag", "predicted, 88%"),
    ],
)
def test_the_prediction_is_used_as_measured_unless_the_caller_decides(
    catalogue, tmp_path, confidence, all_verticals, vertical, why
):
    # The index identifies a model by its graph and weights, which are the same.
    copied = tmp_path / "saved_model"
    shutil.copytree(catalogue.saved_model, copied)
    (copied / "assets" / "routing_confidence.txt").write_text(f"{confidence}\n")
    sources = SearchSources(copied, catalogue.dataset.directory)
    _, (image, *_) = street_images(catalogue, "dress")
    fields = {} if all_verticals is None else {"all_verticals": all_verticals}
    with TestClient(make_service(catalogue.index, sources, Limits(rate=0))) as client:
        found = search(client, image, k="100", **fields).json()
        info = client.get("/api/info").json()
    kinds = {hit["vertical"] for hit in found["hits"]}

    assert (found["vertical"], found["why"]) == (vertical, why)
    assert found["predicted"] is (vertical is not None)
    assert kinds == ({vertical} if vertical else {"bag", "dress"})
    assert info["routing_confidence"] == float(confidence)


def test_the_table_of_the_shell_names_the_vertical_and_the_reason(catalogue, tmp_path):
    searcher, _ = open_searcher(
        catalogue.index,
        SearchSources(catalogue.saved_model, catalogue.dataset.directory),
        Limits().max_pixels,
    )
    path = tmp_path / "image.png"
    path.write_bytes(encoded())

    def last_line(**options):
        return table_of(search_files(searcher, [path], 3, **options)).splitlines()[-1]

    unsure = "in all verticals (the model predicts bag, 88.1%; predictions are not used); "
    assert last_line().startswith(unsure)
    searcher.routing_confidence = 0.8
    assert last_line().startswith("in bag (predicted, 88%); prepare ")
    assert last_line(all_verticals=True).startswith("in all verticals (as requested); ")
    assert last_line(vertical="dress").startswith("in dress (as requested); ")


def test_a_vertical_unknown_to_the_model_is_reported_and_searched(catalogue, tmp_path, new_index):
    model = LocalModel(catalogue.saved_model)
    embeddings = model.embed([encoded(seed=seed) for seed in range(3)]).embeddings
    table = {
        "image": ["0.png", "1.png", "2.png"],
        "item_id": ["0", "1", "2"],
        "vertical": ["bag", "dress", "hat"],
        "embedding": embeddings.tolist(),
    }
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    source = IndexSource(catalogue.saved_model, tmp_path, bulk=tmp_path / "table.parquet")
    with open_index(new_index()) as index:
        done = fill_index(index, source, IndexSettings())
        searcher = Searcher(index, done.version, model)
        routed = searcher.search_bytes(encoded(seed=2), 5, all_verticals=False)
        everything = searcher.search_bytes(encoded(seed=2), 5)
        searcher.routing_confidence = 0.5
        measured = searcher.search_bytes(encoded(seed=2), 5)
    assert done.unknown == ("hat",)
    assert (routed.vertical, routed.predicted) == ("bag", True)
    assert {hit.image.vertical for hit in routed.hits} == {"bag", "hat"}
    assert (measured.vertical, measured.hits) == (routed.vertical, routed.hits)
    assert {hit.image.vertical for hit in everything.hits} == {"bag", "dress", "hat"}
    assert everything.hits[0].image.vertical == "hat"


def test_a_new_vertical_is_searched_without_a_restart(catalogue, tmp_path, new_index):
    model = LocalModel(catalogue.saved_model)
    embedding = model.embed([encoded(seed=9)]).embeddings
    source = IndexSource(catalogue.saved_model, catalogue.dataset.directory)
    with open_index(new_index()) as index:
        fill_index(index, source, IndexSettings())
        sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)
        with TestClient(make_service(index, sources, Limits(rate=0))) as client:

            def request(**fields):
                image = {"file": ("new.png", encoded(seed=9), "image/png")}
                return client.post("/api/search", files=image, data=fields)

            assert request(vertical="hat").status_code == 422
            hat = IndexedImage("f" * 32, "hat.png", "hat1", "hat")
            index.change(index.current(), [hat], embedding, [])
            assert [hit["item"] for hit in request(vertical="hat").json()["hits"]] == ["hat1"]
            routed = request(all_verticals="false").json()
            assert (routed["vertical"], routed["hits"][0]["item"]) == ("bag", "hat1")
            assert client.get("/api/info").json()["verticals"] == ["bag", "dress", "hat"]
            count = index.current().images
            assert f"apparel_search_images {count}.0" in client.get("/metrics").text


def test_a_box_gives_the_hits_of_its_crop(client):
    whole = Image.new("RGB", (200, 100), "white")
    garment = Image.open(io.BytesIO(encoded(50, 50, seed=3))).resize((60, 60))
    whole.paste(garment, (120, 20))
    file = io.BytesIO()
    whole.save(file, "PNG")
    # With the margin of 0.1 that prepare_dataset adds to a box.
    crop = io.BytesIO()
    whole.crop((114, 14, 186, 86)).save(crop, "PNG")

    boxed = search(client, file.getvalue(), box="120,20,180,80").json()
    cropped = search(client, crop.getvalue()).json()

    assert boxed["hits"] == cropped["hits"]
    assert boxed["hits"] != search(client, file.getvalue()).json()["hits"]


def test_several_images_of_one_garment_are_searched_by_their_mean(client, catalogue):
    _, images = street_images(catalogue, "dress")
    files = [("file", (f"{n}.jpg", image, "image/jpeg")) for n, image in enumerate(images[:3])]
    answer = client.post("/api/search", files=files, data={"k": "5", "vertical": "dress"}).json()
    # The service encodes every image again.
    model = LocalModel(catalogue.saved_model)
    jpegs = [prepare_image(image, ImageSettings()).jpeg for image in images[:3]]
    mean = model.embed(jpegs).embeddings.mean(axis=0)
    version = catalogue.index.current()
    hits = catalogue.index.search(version, mean / np.linalg.norm(mean), 5, vertical="dress")
    assert [hit["key"] for hit in answer["hits"]] == [hit.image.key for hit in hits]
    one = search(client, images[0], vertical="dress", k="5").json()
    assert one["hits"] != answer["hits"]


@pytest.mark.parametrize(
    ("count", "fields", "message"),
    [
        (9, {}, "9 images; expected 1 to 8"),
        (2, {"box": "1,1,20,20"}, "2 images; expected 1 because a box is given"),
    ],
)
def test_too_many_images_are_refused(client, count, fields, message):
    files = [("file", (f"{n}.png", encoded(seed=n), "image/png")) for n in range(count)]
    answer = client.post("/api/search", files=files, data=fields)
    assert (answer.status_code, answer.json()["detail"]) == (422, message)


def test_one_broken_image_among_several_is_refused_and_the_size_limit_is_for_all(client):
    files = [("file", ("a.png", encoded(), "image/png")), ("file", ("b", b"text", "image/png"))]
    answer = client.post("/api/search", files=files)
    assert answer.status_code == 422 and "not an image" in answer.json()["detail"]
    large = [("file", (f"{n}.png", b"0" * 100_001, "image/png")) for n in range(3)]
    assert client.post("/api/search", files=large).status_code == 413


def test_each_of_several_images_counts_as_a_search(service):
    with TestClient(service(rate=0.001, burst=3)) as client:
        for count, status in ((2, 200), (2, 429)):
            files = [("file", (f"{n}.png", encoded(seed=n), "image/png")) for n in range(count)]
            answer = client.post("/api/search", files=files)
            assert answer.status_code == status, answer.text
    assert "each image counts as one" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 1


def test_searching_by_a_hit_leaves_the_hit_out(client, catalogue):
    _, (image, *_) = street_images(catalogue, "bag")
    hit = search(client, image).json()["hits"][0]

    similar = client.get("/api/similar", params={"key": hit["key"], "k": 100}).json()

    assert (similar["vertical"], similar["why"]) == ("bag", "that of the image")
    for wanted, vertical in (({"all_verticals": True}, None), ({"vertical": "dress"}, "dress")):
        other = client.get("/api/similar", params={"key": hit["key"], **wanted}).json()
        assert (other["vertical"], other["why"]) == (vertical, "as requested")
    assert hit["key"] not in {one["key"] for one in similar["hits"]}
    assert all(one["distance"] > 0 for one in similar["hits"])
    missing = client.get("/api/similar", params={"key": "0" * 32})
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        f"no image '{'0' * 32}' in the index",
    )


def test_only_images_of_the_index_are_served(client, catalogue):
    _, (image, *_) = street_images(catalogue, "bag")
    hit = search(client, image).json()["hits"][0]
    served = client.get(f"/images/{hit['key']}")
    record = catalogue.dataset.column("image").tolist().index(hit["image"])

    assert served.headers["content-type"] == "image/jpeg"
    assert served.content == catalogue.dataset.read_images([record])[0]
    assert Image.open(io.BytesIO(client.get("/examples/0").content)).format == "JPEG"
    for path in (
        "/images/../../../etc/passwd",
        "/images/..%2f..%2f..%2fetc%2fpasswd",
        "/images/" + "0" * 32,
        "/images/" + "a" * 31 + "%00",
        "/images//etc/passwd",
        "/images/https:%2f%2fexample.com%2fa.jpg",
        "/examples/2",
        "/examples/-1",
        "/examples/99999999999999999999",
        "/app.js/../index.html",
        "/../setup.py",
        "/static/app.js",
    ):
        assert client.get(path).status_code in (404, 422), path


def test_the_page_loads_nothing_from_other_sites(client):
    for path in ("/", "/app.js", "/boxes.js", "/app.css"):
        text = client.get(path).text
        assert "http:" not in text and "https:" not in text and "//cdn" not in text
    assert "style=" not in client.get("/").text
    assert "onclick" not in client.get("/").text


def test_the_interface_is_documented(client):
    paths = client.get("/openapi.json").json()["paths"]

    assert {"/api/search", "/api/similar", "/api/info", "/images/{key}", "/readyz"} <= set(paths)
    assert {"200", "413", "422", "429", "503"} <= set(paths["/api/search"]["post"]["responses"])


def test_health_metrics_and_logs(client, caplog):
    with caplog.at_level("INFO", "apparel_embed.search"):
        search(client, encoded())
        search(client, b"not an image")
    metrics = client.get("/metrics").text
    logged = [record.about for record in caplog.records if hasattr(record, "about")]

    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    assert 'apparel_search_requests_total{route="/api/search",status="422"}' in metrics
    assert "apparel_search_images 40.0" in metrics
    assert [(one["path"], one["status"]) for one in logged] == [
        ("/api/search", 200),
        ("/api/search", 422),
    ]
    json.dumps(logged)


def test_tensorflow_serving_gives_the_hits_of_the_model_in_process(client, catalogue):
    from prediction_server import Behaviour, grpc_server

    behaviour = Behaviour(catalogue.saved_model)
    _, (image, *_) = street_images(catalogue, "bag")
    with grpc_server(behaviour) as address:
        sources = SearchSources(
            catalogue.saved_model, catalogue.dataset.directory, serving_address=address
        )
        app = make_service(catalogue.index, sources, Limits(rate=0))
        with TestClient(app) as remote:
            here, there = (
                search(one, image, all_verticals="false").json() for one in (client, remote)
            )
            behaviour.failures = [grpc.StatusCode.NOT_FOUND]
            failed = search(remote, image)
        right = behaviour.answer
        behaviour.answer = lambda *request: {
            name: -values if name == "embedding" else values
            for name, values in right(*request).items()
        }
        with pytest.raises(UserError, match=r"its model is not that of the index: .* is -1\.000"):
            make_service(catalogue.index, sources, Limits(rate=0))
        behaviour.version += 1
        with pytest.raises(ModelNotFound):
            make_service(catalogue.index, sources, Limits(rate=0))
    assert len(behaviour.requests) >= 2
    assert there["predicted"] and there["vertical"] == here["vertical"]
    assert [hit["key"] for hit in there["hits"]] == [hit["key"] for hit in here["hits"]]
    assert (failed.status_code, failed.json()["detail"]) == (
        503,
        "the index or the model is not available",
    )
