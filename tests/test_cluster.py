import json

import pytest

from apparel_embed import cluster
from apparel_embed.cluster import Cluster, is_chief, read_cluster
from apparel_embed.errors import UserError

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
def test_a_chief_of_its_own_comes_before_the_workers(monkeypatch, kind, index, place):
    named = {"chief": HOSTS[:1], "worker": HOSTS[1:]}
    monkeypatch.setenv(cluster.VARIABLE, tf_config(named, kind, index))
    assert read_cluster() == Cluster(tuple(HOSTS), place)


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
        tf_config({"ps": HOSTS}),
        tf_config(HOSTS),
        json.dumps({"cluster": {"worker": HOSTS}}),
        json.dumps({"cluster": {"worker": HOSTS}, "task": None}),
    ],
)
def test_what_names_no_cluster_is_told_in_one_line(monkeypatch, text):
    monkeypatch.setenv(cluster.VARIABLE, text)
    with pytest.raises(UserError, match=r"TF_CONFIG=.*is no cluster of workers") as caught:
        is_chief()
    assert "\n" not in str(caught.value)
