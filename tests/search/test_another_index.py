"""What an index has to be for the service: any class with the methods of `VectorIndex` will do."""

import dataclasses
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import (
    Hit,
    IndexSettings,
    Version,
    check_embeddings,
    nearest_groups,
)
from apparel_embed.search.limits import Limits
from apparel_embed.search.server import SearchSources, make_service

pytestmark = pytest.mark.slow


class MemoryIndex:
    """An exact index in memory."""

    def __init__(self):
        self._versions, self._rows, self._current = {}, {}, None

    def current(self):
        return self._versions.get(self._current)

    def version(self, model):
        return self._versions.get(model)

    def begin(self, version):
        self._versions.setdefault(version.model, version)
        self._rows.setdefault(version.model, {})
        return version

    def upsert(self, version, pictures, embeddings):
        check_embeddings(version, pictures, embeddings)
        rows = {one.key: (one, vector) for one, vector in zip(pictures, embeddings)}
        self._rows[version.model].update(rows)

    def delete(self, version, keys):
        for key in keys:
            self._rows[version.model].pop(key, None)

    def finish(self, version):
        pictures = [one for one, _ in self._rows[version.model].values()]
        verticals = tuple(sorted({one.vertical for one in pictures}))
        counted = {"complete": True, "pictures": len(pictures), "verticals": verticals}
        self._versions[version.model] = dataclasses.replace(version, **counted)
        return self._versions[version.model]

    def switch(self, version):
        self._current = version.model

    def keys(self, version, *, of_dataset=False, pictures=None, items=None):
        for one, _ in self._rows[version.model].values():
            named = pictures is None or one.key in pictures or one.picture in pictures
            if (
                named
                and (items is None or one.item in items)
                and (one.record >= 0 or not of_dataset)
            ):
                yield one.key

    def picture(self, version, key):
        return self._rows[version.model].get(key)

    def search(self, version, embedding, k, *, vertical=None, by_item=True, without=""):
        verticals = (vertical,) if isinstance(vertical, str) else vertical
        hits = sorted(
            (
                Hit(one, float(np.linalg.norm(vector - embedding)))
                for one, vector in self._rows[version.model].values()
                if one.key != without and (verticals is None or one.vertical in verticals)
            ),
            key=lambda hit: hit.distance,
        )
        return nearest_groups(lambda limit, unwanted, effort: hits[:limit], k, by_item=by_item)


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
