"""Every interface to a model embeds an image as `prepare` decodes it, or refuses it."""

import functools

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_kinds import FOUR, KINDS, STORED, encode, quarters
from prediction_server import Behaviour, grpc_server

from apparel_embed.data.images import ImageSettings, prepare_image
from apparel_embed.inference.bulk import bulk_embed, run_here
from apparel_embed.inference.bulk_shard import BulkConfig
from apparel_embed.inference.bulk_sources import DIRECTORY, SourceConfig
from apparel_embed.search.index import Version
from apparel_embed.search.searcher import Searcher
from apparel_embed.serving import Client, LocalModel
from apparel_embed.serving.local import load_image_embedder

pytestmark = pytest.mark.slow

FILES = [data for data, *_ in KINDS.values()]
SETTINGS = ImageSettings()


class RecordingIndex:
    """Replaces an index and records the embeddings that are searched."""

    def __init__(self):
        self.embeddings = []

    def version(self, model):
        return None

    def search(self, version, embedding, k, **options):
        self.embeddings.append(embedding)
        return []


def by_client(local, saved_model, directory):
    with grpc_server(Behaviour(saved_model)) as address, Client(address) as client:
        return client.embed(FILES).embeddings


def by_local_model(local, saved_model, directory):
    return local.embed(FILES).embeddings


def by_service(local, saved_model, directory):
    index = RecordingIndex()
    searcher = Searcher(index, Version("model", 8, image_settings=SETTINGS), local)
    for data in FILES:
        searcher.search_bytes(data, 1)
    return np.array(index.embeddings)


def by_bulk(local, saved_model, directory):
    (directory / "images").mkdir()
    for place, data in enumerate(FILES):
        (directory / "images" / f"{place:03d}.jpg").write_bytes(data)
    config = BulkConfig(
        SourceConfig(DIRECTORY, str(directory / "images"), SETTINGS, 100),
        model_fingerprint="model",
        output=str(directory / "embeddings"),
        batch_size=16,
    )
    load = functools.partial(load_image_embedder, str(saved_model))
    bulk_embed(config, functools.partial(run_here, load=load, threads=1))
    (shard,) = (directory / "embeddings").glob("embeddings-*.parquet")
    table = pq.read_table(shard).sort_by("image")
    return np.stack(table["embedding"].to_numpy())


@pytest.fixture(scope="module")
def local(exported_with_head):
    return LocalModel(exported_with_head)


@pytest.fixture(scope="module")
def expected(local):
    """Embeddings of the prepared images."""
    return local.embed([prepare_image(data, SETTINGS).jpeg for data in FILES]).embeddings


@pytest.mark.parametrize("way", [by_client, by_local_model, by_service, by_bulk])
def test_every_interface_embeds_the_prepared_image(
    way, local, exported_with_head, expected, tmp_path
):
    found = way(local, exported_with_head, tmp_path)

    assert found.shape == expected.shape
    apart = dict(zip(KINDS, np.linalg.norm(found - expected, axis=1)))
    assert {kind: far for kind, far in apart.items() if far > 0.02} == {}


def test_rotated_or_recoloured_images_are_not_that_near(local, expected):
    wrong = [STORED, quarters(*FOUR[::-1]), quarters(FOUR[1], FOUR[0], *FOUR[2:])]
    found = local.embed([encode(one, "JPEG") for one in wrong])
    assert np.linalg.norm(found.embeddings - expected[0], axis=1).min() > 0.1
