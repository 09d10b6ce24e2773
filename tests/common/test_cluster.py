import json

import pytest

from apparel_embed.common import cluster
from apparel_embed.common.cluster import Cluster, is_chief, read_cluster
from apparel_embed.common.errors import UserError

HOSTS = ["a:1", "b:2", "c:3"]


def tf_config(named, kind="worker", index=0):
    return json.dumps({"cluster": named, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize("text", [None, ""])
def test_without_tf_config_a_process_is_alone_and_the_chief(monkeypatch, text):
    monkeypatch.delenv(cluster.VARIABLE, raising=False)
    if text is not None:
        monkeypatch.setenv(cluster.VARIABLE, text)
    assert read_cluster() is None
    assert is_chief()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_first_worker_is_the_chief(monkeypatch, index):
    monkeypatch.setenv(cluster.VARIABLE, tf_config({"worker": HOSTS}, index=index))
    assert read_cluster() == Cluster(tuple(HOSTS), index)
    assert is_chief() == (index == 0)


@pytest.mark.parametrize(
    ("kind", "index", "place"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_a_separate_chief_comes_before_the_workers(monkeypatch, kind, index, place):
    named = {"chief": HOSTS[:1], "worker": HOSTS[1:]}
    monkeypatch.setenv(cluster.VARIABLE, tf_config(named, kind, index))
    assert read_cluster() == Cluster(tuple(HOSTS), place)


def test_addresses_may_be_names_or_numbers(monkeypatch):
    workers = ["worker-0.train_ns.svc:2222", "10.0.0.7:1", "[::1]:65535"]
    monkeypatch.setenv(cluster.VARIABLE, tf_config({"worker": workers}, index="2"))
    assert read_cluster() == Cluster(tuple(workers), 2)


@pytest.mark.parametrize("job", ["worker", "chief", "ps"])
@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ("localhost:1234", "is 'localhost:1234'; expected a list of addresses"),
        ({"0": "a:1"}, "expected a list of addresses"),
        (None, "expected a list of addresses"),
        *(
            ([address], f"is {address!r}; expected host:port with a port of 1 to 65535")
            for address in (
                *("localhost", "http://localhost:2242", "a:", ":1", "a:0", "a:65536", "a:http"),
                *("a:1/", "a:1 ", " a:1", "::1:80", "grpc://a:1", "", 1234, None),
            )
        ),
    ],
)
def test_an_invalid_address_is_refused_before_tensorflow_sees_it(
    monkeypatch, job, addresses, message
):
    named = {"worker": HOSTS, job: addresses}
    monkeypatch.setenv(cluster.VARIABLE, tf_config(named))
    with pytest.raises(UserError, match=r"TF_CONFIG=.*not a valid cluster of workers") as caught:
        read_cluster()
    assert f"{job} " in str(caught.value) and message in str(caught.value).replace('\\"', '"')


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "7",
        "{}",
        tf_config({"worker": HOSTS}, index=3),
        tf_config({"worker": HOSTS}, index=-1),
        tf_config({"worker": HOSTS}, index="first"),
        tf_config({"worker": HOSTS}, kind="chief"),
        tf_config({"worker": HOSTS, "ps": ["d:4"]}, kind="ps"),
        tf_config({"worker": HOSTS, "evaluator": ["d:4"]}, kind="evaluator"),
        tf_config({"worker": HOSTS}, index=0.7),
        tf_config({"worker": HOSTS}, index=True),
        tf_config({"chief": HOSTS[:2], "worker": HOSTS[2:]}),
        tf_config({"worker": HOSTS, "master": ["d:4"]}),
        tf_config({"worker": ["a:1", "a:1"]}),
        tf_config({"ps": HOSTS}),
        tf_config(HOSTS),
        json.dumps({"cluster": {"worker": HOSTS}}),
        json.dumps({"cluster": {"worker": HOSTS}, "task": None}),
    ],
)
def test_an_invalid_cluster_gives_an_error_of_one_line(monkeypatch, text):
    monkeypatch.setenv(cluster.VARIABLE, text)
    with pytest.raises(UserError, match=r"TF_CONFIG=.*not a valid cluster of workers") as caught:
        is_chief()
    assert "\n" not in str(caught.value)
