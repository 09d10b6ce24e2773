"""Features and failures that only a Milvus server has; see test_vector_index.py for the rest."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from milvus_server import MilvusServer
from search_images import some_images, unit_vectors

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.neighbours import nearest
from apparel_embed.search.build import build_index
from apparel_embed.search.index import IndexAccess, IndexSettings, Version, open_index

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("MILVUS_PYTHON"), reason="needs a Milvus server: make test-milvus"
    ),
]

A, DIM = "a" * 64, 8


@pytest.fixture(scope="module")
def filled(new_index):
    with open_index(new_index()) as index:
        rows = iter([(some_images(60), unit_vectors(60))])
        yield index, build_index(index, Version(A, DIM), rows).version


def test_a_text_that_is_too_long_is_refused(filled):
    index, version = filled
    long = dataclasses.replace(some_images(1)[0], item="ü" * 600)
    with pytest.raises(UserError, match="item has 1200 bytes; expected at most 1024"):
        index.upsert(version, [long], unit_vectors(1))


def test_filling_a_version_with_other_settings_is_refused(filled):
    index, _ = filled
    with pytest.raises(UserError, match="name another server"):
        index.begin(Version(A, DIM, settings=IndexSettings("IVF_FLAT")))


def test_an_exhaustive_search_replaces_a_graph_that_finds_nothing(filled, monkeypatch):
    index, version = filled
    graph = dataclasses.replace(version, settings=IndexSettings("HNSW"))
    monkeypatch.setattr(index._client, "search", lambda *a, **named: [[]])
    hits = index.search(graph, unit_vectors(60)[5], 60, by_item=False)
    places, _ = nearest(unit_vectors(60)[5:6], unit_vectors(60), 60, np.array([-1]), np.arange(60))
    assert [int(hit.image.key, 16) for hit in hits] == places[0].tolist()


def test_a_collection_of_another_release_is_refused(new_index, monkeypatch):
    with open_index(new_index()) as index:
        rows = iter([(some_images(5), unit_vectors(5))])
        monkeypatch.setattr(Version, "to_json", lambda self: '{"model": "a", "photos": 5}')
        with pytest.raises(UserError, match="was written by another release; drop it, then"):
            build_index(index, Version(A, DIM), rows)


@pytest.mark.parametrize(
    "settings", [IndexSettings("IVF_FLAT", ivf_lists=16, ivf_probes=8), IndexSettings("HNSW")]
)
def test_approximate_kinds_have_high_recall(new_index, settings):
    embeddings = unit_vectors(3000)
    with open_index(new_index()) as index:
        rows = iter([(some_images(3000, ("bag", "hat")), embeddings)])
        version = build_index(index, Version(A, DIM, settings=settings), rows).version
        for vertical, places in ((None, np.arange(3000)), ("hat", np.arange(1, 3000, 2))):
            found = 0
            for query in unit_vectors(20, seed=5):
                hits = index.search(version, query, 10, vertical=vertical, by_item=False)
                least, _ = nearest(query[None], embeddings[places], 10, np.array([-1]), places)
                wanted = set(places[least[0]].tolist())
                found += len({int(hit.image.key, 16) for hit in hits} & wanted)
            assert found >= 0.95 * 200


def test_databases_of_one_server_are_independent(filled, milvus):
    index, version = filled
    with open_index(milvus.new_database("other")) as other:
        assert other.current() is None
        build_index(other, Version("b" * 64, 4), iter([(some_images(5), unit_vectors(5, 4))]))
        assert len(other.search(other.current(), unit_vectors(1, 4)[0], 9, by_item=False)) == 5
    assert index.current() == version
    assert len(index.search(version, unit_vectors(1)[0], 5)) == 5


FILLER = """
import sys
sys.path.insert(0, sys.argv[2])
from search_images import some_images, unit_vectors
from apparel_embed.search.build import build_index
from apparel_embed.search.index import Version, open_index

def rows():
    images, embeddings = some_images(int(sys.argv[3])), unit_vectors(int(sys.argv[3]), 8, 1)
    for start in range(0, len(images), 500):
        print(start, flush=True)
        yield images[start : start + 500], embeddings[start : start + 500]

with open_index(sys.argv[1]) as index:
    build_index(index, Version("b" * 64, 8), rows())
print("done")
"""


@pytest.fixture
def server(tmp_path_factory):
    """A separate server that the test may kill."""
    server = MilvusServer(os.environ["MILVUS_PYTHON"], tmp_path_factory.mktemp("killed"))
    server.start()
    yield server
    server.kill()


def start_filler(server, request, count):
    command = [sys.executable, "-c", FILLER, server.address, str(request.path.parents[1])]
    return subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE, text=True)


def test_killing_server_or_filler_at_random_moments_loses_no_complete_version(server, request):
    with open_index(server.address) as index:
        build_index(index, Version(A, DIM), iter([(some_images(30), unit_vectors(30))]))
    random = np.random.default_rng()
    for victim in (server, None, server):
        seconds = random.uniform(0, 6)
        print(f"{'server' if victim else 'filler'} killed {seconds:.3f} s after the first row")
        filler = start_filler(server, request, 4000)
        filler.stdout.readline()
        timer = threading.Timer(seconds, (victim or filler).kill)
        timer.start()
        timer.join()
        if victim:
            filler.kill()
            victim.start()
        filler.wait()
        filler.stdout.close()
        with open_index(server.address) as index:
            current = index.current()
            assert current.model in (A, "b" * 64) and current.complete
            hits = index.search(current, unit_vectors(1)[0], 9999, by_item=False)
            assert len(hits) == current.images == (30 if current.model == A else 4000)
    again = start_filler(server, request, 4000)
    assert again.communicate()[0].endswith("done\n")
    embeddings = unit_vectors(4000, 8, 1)
    with open_index(server.address) as index:
        whole = index.current()
        assert (whole.model, whole.images) == ("b" * 64, 4000)
        assert sorted(int(key, 16) for key in index.keys(whole)) == list(range(4000))
        for place in random.integers(0, 4000, 20):
            ((image, stored),) = index.find(whole, [f"{place:032x}"])
            assert image == some_images(place + 1)[-1]
            np.testing.assert_array_equal(stored, embeddings[place])


def test_searches_work_again_after_the_server_is_restarted(server):
    with open_index(server.address) as index:
        rows = iter([(some_images(30), unit_vectors(30))])
        version = build_index(index, Version(A, DIM), rows).version
        hits = index.search(version, unit_vectors(1)[0], 5)
        server.kill()
        with pytest.raises(UserError):
            index.search(version, unit_vectors(1)[0], 5)
        server.start()
        for _ in range(60):
            with contextlib.suppress(UserError):
                assert index.search(version, unit_vectors(1)[0], 5) == hits
                return
            time.sleep(1)
    pytest.fail("no answer within a minute")


def certificates(directory):
    """Creates a certificate authority and the certificates of a server and a client."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    authority = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *authority)
    for name in ("server", "client"):
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("req", "-newkey", "rsa:2048", "-nodes", *request)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-days", "2", "-out", f"{name}.pem")


@pytest.mark.parametrize("mode", [1, 2])
def test_a_server_with_users_is_reached_by_tls_without_leaking_the_password(tmp_path, mode, capfd):
    certificates(tmp_path)
    server = MilvusServer(
        os.environ["MILVUS_PYTHON"],
        tmp_path / "server",
        authorization_enabled=True,
        tls_mode=mode,
        server_pem_path=str(tmp_path / "server.pem"),
        server_key_path=str(tmp_path / "server.key"),
        ca_pem_path=str(tmp_path / "ca.pem"),
    )
    server.start()
    address = server.address.replace("http://127.0.0.1", "https://localhost")
    files = {"certificate": "client.pem", "private_key": "client.key"} if mode == 2 else {}
    files = {name: str(tmp_path / file) for name, file in {"ca_file": "ca.pem", **files}.items()}
    access = IndexAccess("root", secret="Milvus", **files)
    with open_index(address, access) as index:
        rows = iter([(some_images(30), unit_vectors(30))])
        version = build_index(index, Version(A, DIM), rows).version
        assert len(index.search(version, unit_vectors(1)[0], 5)) == 5
    for wrong in (
        dataclasses.replace(access, secret="0ther-s3cret"),
        IndexAccess("root", secret="0ther-s3cret"),
        IndexAccess(**files),
    ):
        with pytest.raises(UserError) as error, open_index(address, wrong):
            pass
        assert "cannot be reached" in str(error.value) and len(str(error.value).splitlines()) == 1
        assert "0ther-s3cret" not in str(error.value) + "".join(capfd.readouterr()) + repr(wrong)
    server.kill()


def test_an_address_with_a_password_is_refused_without_leaking_it():
    with pytest.raises(UserError, match="--index_user") as error:
        open_index("http://root:0ther-s3cret@localhost:19530").__enter__()
    assert "0ther-s3cret" not in str(error.value)
