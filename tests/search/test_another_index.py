"""What an index has to be for the service: any class with the methods of `VectorIndex` will do."""

import io

import pytest
from extensions.index import MemoryIndex
from fastapi.testclient import TestClient
from PIL import Image

from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, Version
from apparel_embed.search.limits import Limits
from apparel_embed.search.server import SearchSources, make_service

pytestmark = pytest.mark.slow


def test_the_service_answers_alike_from_any_index(catalogue):
    memory = MemoryIndex()
    source = IndexSource(catalogue.saved_model, catalogue.dataset.directory)
    done = fill_index(memory, source, IndexSettings())
    sources = SearchSources(catalogue.saved_model, catalogue.dataset.directory)
    file = io.BytesIO()
    Image.effect_noise((60, 40), 90).convert("RGB").save(file, "PNG")
    answers = []
    for index in (memory, catalogue.index):
        with TestClient(make_service(index, sources, Limits(rate=0))) as client:
            asked = [
                client.post("/api/search", files={"file": file.getvalue()}, data=data).json()
                for data in ({}, {"all_verticals": "false"}, {"vertical": "dress", "k": "3"})
            ]
            key = asked[0]["hits"][0]["key"]
            asked.append(client.get("/api/similar", params={"key": key}).json())
            assert client.get(f"/pictures/{key}").status_code == 200
            answers.append([[(hit["key"], hit["item"]) for hit in one["hits"]] for one in asked])
    assert isinstance(done.version, Version)
    assert done.version == catalogue.index.current()
    assert answers[0] == answers[1]
