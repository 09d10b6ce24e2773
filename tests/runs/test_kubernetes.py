"""The example job for several machines: the environment of its containers, without a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

JOB = Path(__file__).parents[2] / "docs/kubernetes/train_job.yaml"


@pytest.fixture(scope="module")
def documents():
    return {one["kind"]: one for one in yaml.safe_load_all(JOB.read_text())}


def test_workers_find_each_other_by_the_host_names_of_the_service(documents, tmp_path):
    service, job = documents["Service"], documents["Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$TF_CONFIG"\n')
    python.chmod(0o755)
    environment = {one["name"]: one["value"] for one in container["env"]}
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env={**os.environ, **environment, "JOB_COMPLETION_INDEX": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    name, port = job["metadata"]["name"], service["spec"]["ports"][0]["port"]
    count = job["spec"]["completions"]
    assert json.loads(done.stdout) == {
        "cluster": {"worker": [f"{name}-{i}.{pod['subdomain']}:{port}" for i in range(count)]},
        "task": {"type": "worker", "index": 3},
    }
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["parallelism"] == count == int(environment["WORKERS"])


@pytest.mark.slow
def test_the_command_only_has_flags_of_the_binary(documents):
    script = documents["Job"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    names = {word.split("=")[0] for word in script.split() if word.startswith("--")}
    known = subprocess.run(
        [sys.executable, str(JOB.parents[2] / "tools/train_specialist.py"), "--helpfull"],
        capture_output=True,
        text=True,
    ).stdout

    assert names == {
        "--strategy",
        "--prepared",
        "--run_dir",
        "--verticals",
        "--specialist_start",
    }
    assert all(f"  {name}=" in known for name in names)
