"""A small catalogue of generated garments, its model and its index; all are read-only."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from milvus_server import MilvusServer

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, VectorIndex, open_index


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The catalogue that the tests search."""

    manifest: Path
    dataset: PreparedDataset
    saved_model: Path
    index: VectorIndex


MILVUS_PYTHON = os.environ.get("MILVUS_PYTHON", "")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory):
    """A Milvus server; see `make test-milvus`."""
    if not MILVUS_PYTHON:
        pytest.skip("needs MILVUS_PYTHON, a Python that has the package milvus: make test-milvus")
    server = MilvusServer(MILVUS_PYTHON, tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def new_index(request, tmp_path_factory):
    """A function that returns addresses of empty indexes: files, or Milvus databases."""
    numbers = itertools.count()

    def make() -> str:
        if MILVUS_PYTHON:
            return request.getfixturevalue("milvus").new_database(f"tests_{next(numbers)}")
        return str(tmp_path_factory.mktemp("index") / "index.db")

    return make


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory, new_index):
    """8 bags and 8 dresses of the test split; the untrained model always predicts bag."""
    import tensorflow as tf

    from apparel_embed.data.prepare import prepare
    from apparel_embed.data.prepare_plan import PrepareConfig
    from apparel_embed.data.synthetic.generate import generate
    from apparel_embed.data.synthetic.world import SyntheticConfig
    from apparel_embed.models.embedding import ModelConfig, build_embedding_model
    from apparel_embed.models.vertical_head import VerticalHead
    from apparel_embed.serving.saved_model import ExportConfig, export_saved_model

    directory = tmp_path_factory.mktemp("catalogue")
    drawn = generate(
        SyntheticConfig(
            verticals=("bag", "dress"), train_items=1, val_items=1, test_items=8, image_size=64
        ),
        directory / "synthetic",
    )
    dataset = prepare(PrepareConfig(drawn.manifest, directory / "prepared"), processes=1)
    tf.keras.utils.set_random_seed(1)
    model = build_embedding_model(ModelConfig("small_cnn", image_size=32, embedding_dim=16))
    width = model.get_layer("pooling").output.shape[-1]
    head = VerticalHead(
        ("bag", "dress"), np.zeros((width, 2), np.float32), np.array([2.0, 0.0], np.float32)
    )
    saved_model = directory / "saved_model" / "1"
    export_saved_model(model, saved_model, ExportConfig(warm_up=False), head=head)
    with open_index(new_index()) as index:
        fill_index(index, IndexSource(saved_model, directory / "prepared"), IndexSettings())
        yield Catalogue(drawn.manifest, dataset, saved_model, index)


@pytest.fixture(scope="session")
def service(catalogue):
    """A function that returns the service of the catalogue, with some limits."""
    from apparel_embed.search.limits import Limits
    from apparel_embed.search.server import SearchSources, make_service

    sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)

    def make(**limits):
        return make_service(
            catalogue.index, sources, Limits(**{"rate": 0, "max_bytes": 200_000, **limits})
        )

    return make


@pytest.fixture(scope="session")
def judging(catalogue, tmp_path_factory):
    """A function that returns sources by level: the catalogue's model with thresholds.

    The index identifies a model by its graph and weights, which are the same.
    """
    from apparel_embed.search.config import SearchSources

    copied = tmp_path_factory.mktemp("judging") / "1"
    shutil.copytree(catalogue.saved_model, copied)
    thresholds = {"0.01": {}, "0.05": {"bag": 2.0, "dress": 1e-6}, "0.1": {"ALL": 2.0}}
    (copied / "assets/absent_thresholds.json").write_text(json.dumps(thresholds))
    prepared = catalogue.dataset.directory
    return lambda level="0.05": SearchSources(copied, prepared, false_accepts=level)


@pytest.fixture(scope="session")
def detecting(catalogue):
    """A function that returns the service of the catalogue with a detector, and some limits."""
    from detecting_model import QuarterModel

    from apparel_embed.search.limits import Limits
    from apparel_embed.search.server import SearchSources, make_service

    sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)

    def make(**limits):
        limits = Limits(**{"rate": 0, "max_bytes": 400_000, **limits})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("apparel_embed.search.server.LocalModel", QuarterModel)
            return make_service(catalogue.index, sources, limits)

    return make


@pytest.fixture(scope="session")
def clearest(catalogue):
    """Street images whose nearest gallery image is of the same item, and that item, by vertical.

    The clearest come first, since the service encodes images again.
    """
    from apparel_embed.evaluation.neighbours import nearest
    from apparel_embed.search.source import GALLERY
    from apparel_embed.serving.local import LocalModel

    model, dataset = LocalModel(catalogue.saved_model), catalogue.dataset
    items, images = dataset.column("item_id"), dataset.column("image")
    found = {}
    for vertical in dataset.verticals:
        gallery = dataset.select(verticals=[vertical], roles=GALLERY)
        queries = dataset.select(split="test", verticals=[vertical], roles=["query"])
        places, distances = nearest(
            model.embed(dataset.read_images(queries)).embeddings,
            model.embed(dataset.read_images(gallery)).embeddings,
            len(gallery),
            queries,
            gallery,
        )
        right = items[gallery[places[:, 0]]] == items[queries]
        other = items[gallery[places]] != items[queries][:, None]
        margin = np.where(other, distances, np.inf).min(axis=1) - distances[:, 0]
        order = [query for query in np.argsort(-margin) if right[query]]
        found[vertical] = [
            (str(catalogue.manifest.parent / images[record]), items[record])
            for record in queries[order]
        ]
    return found


@pytest.fixture(scope="session")
def scene(clearest):
    """A photograph of four garments, and the item of each: two bags above two dresses."""
    from detecting_model import scene_of

    shown = []
    for vertical in ("bag", "dress"):
        one = clearest[vertical][0]
        shown += [one, next(other for other in clearest[vertical] if other[1] != one[1])]
    return scene_of([image for image, _ in shown]), [item for _, item in shown]


@pytest.fixture(scope="session")
def street(clearest):
    """The clearest street image of each vertical, and its item."""
    return {vertical: images[0] for vertical, images in clearest.items()}


@pytest.fixture(scope="session")
def served():
    """Serves applications on free ports until the tests are done."""
    servers = []

    def start(app) -> str:
        config = uvicorn.Config(app, port=0, log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def address(served, service):
    return served(service())


@pytest.fixture(scope="session")
def detecting_address(served, detecting):
    return served(detecting())


# No wider scope: while Playwright runs an event loop, tests cannot start their own.
@pytest.fixture(scope="module")
def browser():
    from search_page import CHROMIUM, playwright

    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that containers do not give.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def watched(browser, address):
    """Yields a page that must not have written to its console in the end."""
    opened = browser.new_page()
    opened.set_default_timeout(20_000)
    lines = []
    # Registered early: a file chooser that opens without a listener is lost.
    opened.on("filechooser", lambda chooser: None)
    opened.on("pageerror", lambda error: lines.append(str(error)))
    opened.on("console", lambda message: lines.append(message.text))
    opened.goto(address)
    opened.wait_for_selector("#vertical option >> nth=0", state="attached")
    yield opened
    opened.close()
    # The browser itself logs refused uploads.
    assert [line for line in lines if "Failed to load resource" not in line] == []


@pytest.fixture
def page(browser, address):
    yield from watched(browser, address)


@pytest.fixture
def detecting_page(browser, detecting_address):
    yield from watched(browser, detecting_address)


@pytest.fixture(scope="module")
def client(service):
    """A client of the catalogue's search service."""
    with TestClient(service(), raise_server_exceptions=False) as opened:
        yield opened
