"""A Milvus server for tests: PyPI's `milvus`, from a given environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

# Unpacks the server into a directory and writes its configuration, with free ports.
_PREPARE = """
import json, sys
from milvus import MilvusServer, _initialize_data_files
directory, settings = sys.argv[1], json.loads(sys.argv[2])
server = MilvusServer()
server.set_base_dir(directory)
for name, value in settings.items():
    server.config.set(name, value)
for name in list(server.config_keys):
    if name.endswith("_port"):
        server.config.set(name, 0)
server.config.resolve()
_initialize_data_files(server.config.base_data_dir)
others = []
for _ in range(3):
    port, socket = server.config.resolve_port(50000)
    server.config.listen_ports[port] = port, socket
    others.append(port)
print(json.dumps([server.listen_port, *others]))
"""
_START_SECONDS = 180


class MilvusServer:
    """A standalone server that can be started and killed repeatedly; its data stay.

    Args:
      python: interpreter of an environment with PyPI's `milvus`.
      directory: directory for the server's program and data.
      **settings: settings of its configuration, as named by that package.
    """

    def __init__(self, python: str, directory: Path, **settings: object) -> None:
        self.directory = directory
        done = subprocess.run(
            [python, "-c", _PREPARE, str(directory), json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.port, self._health, *etcd = json.loads(done.stdout.splitlines()[-1])
        client, peer = (f"http://127.0.0.1:{port}" for port in etcd)
        # Without its own configuration, etcd uses ports 2379 and 2380.
        (directory / "configs" / "etcd.yaml").write_text(
            f"name: default\ndata-dir: {directory}/data/etcd.data\n"
            f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
            f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n"
            f"initial-cluster: default={peer}\n"
        )
        configuration = directory / "configs" / "milvus.yaml"
        written = configuration.read_text()
        path = f"etcd:\n  config:\n    path: {directory}/configs/etcd.yaml\n"
        configuration.write_text(written.replace("\netcd:\n", f"\n{path}", 1))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server and waits until it is ready."""
        environment = {
            **os.environ,
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health),
            "MILVUS_RUN_DIR": str(self.directory / "run"),
            "LD_LIBRARY_PATH": str(self.directory / "bin"),
        }
        with open(self.directory / "logs" / "output.log", "ab") as log:
            self._process = subprocess.Popen(
                [self.directory / "bin" / "milvus", "run", "standalone"],
                cwd=self.directory,
                env=environment,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self.directory / "logs/output.log").read_text()
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def new_database(self, name: str) -> str:
        """Creates a database and returns the address of an index in it."""
        # Imported here: it closes all logging handlers, including those of pytest.
        from pymilvus import MilvusClient

        with contextlib.closing(MilvusClient(self.address, alias=f"makes {name}")) as client:
            client.create_database(name)
        return f"{self.address}/{name}"

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz") as answer:
                return b"OK" in answer.read()
        except OSError:
            return False
