"""The manifest that trains on a cluster says what the program takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apparel_embed.cluster import Cluster

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "docs/kubernetes/train_job.yaml"


@pytest.fixture(scope="module")
def objects():
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFEST.read_text("utf-8"))}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["Job"]["spec"]["template"]


def test_the_job_is_indexed_and_its_pods_find_each_other_by_the_service(objects, pod):
    job, service = objects["Job"]["spec"], objects["Service"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == 2
    assert service["spec"]["clusterIP"] == "None"
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


# In place of the training: a program that says what it was started with.
PROGRAM = """
import sys
from apparel_embed.cluster import read_cluster
print(read_cluster(), sys.argv[1:], sep="|")
"""


@pytest.mark.parametrize("index", [0, 1])
def test_each_pod_gets_the_flags_and_a_tf_config_of_its_own(objects, pod, index, tmp_path):
    container = pod["spec"]["containers"][0]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/train_specialist.py").write_text(PROGRAM)
    given = {one["name"]: one["value"] for one in container["env"]}
    done = subprocess.run(
        container["command"],
        cwd=tmp_path,
        env={
            **os.environ,
            **given,
            "JOB_COMPLETION_INDEX": str(index),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    cluster, flags = done.stdout.strip().split("|")
    port = objects["Service"]["spec"]["ports"][0]["port"]
    hosts = tuple(f"train-specialist-{n}.train-specialist:{port}" for n in range(2))
    assert cluster == repr(Cluster(hosts, index))
    assert "'--strategy=multi_worker'" in flags
