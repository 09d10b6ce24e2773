"""The processes that train together, as given by TF_CONFIG."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from apparel_embed.common.errors import UserError

VARIABLE = "TF_CONFIG"
_JOBS = ("chief", "worker", "ps", "evaluator")
# A host name, or an IPv6 address in brackets.
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_LAST_PORT = 65535
_POLL_SECONDS = 0.5
_LOG_SECONDS = 60.0
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
      workers: "host:port" of each process, the chief first.
      index: index of this process in `workers`; 0 is the chief, the only one that writes.
    """

    workers: tuple[str, ...]
    index: int


def read_cluster() -> Cluster | None:
    """Returns the cluster in the environment's TF_CONFIG; None if that is not set or empty.

    Raises:
      UserError: if it does not name the workers and the index of this process.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        config = json.loads(text)
        named = config["cluster"]
        kind, index = config["task"]["type"], config["task"]["index"]
        for job, addresses in named.items():
            _check_job(job, addresses)
        if not re.fullmatch("[0-9]+", str(index)):
            raise ValueError(f"task index is {index!r}; expected a whole number, 0 or more")
        chiefs = named.get("chief", [])
        workers = (*chiefs, *named.get("worker", []))
        if len(set(workers)) < len(workers):
            raise ValueError("an address occurs twice")
        # The chief, if named separately, comes before the workers.
        place = int(index) + (len(chiefs) if kind == "worker" else 0)
        if kind not in ("chief", "worker") or int(index) >= len(named[kind]):
            raise ValueError(f"task {kind} {index} is not a worker of the cluster")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{VARIABLE}={text!r} is not a valid cluster of workers ({error!r}); expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            "with the index of this process"
        ) from error
    return Cluster(tuple(workers), place)


def _check_job(job: str, addresses: object) -> None:
    """Raises a ValueError for addresses that crash TensorFlow or make it raise obscure errors."""
    if job not in _JOBS:
        raise ValueError(f"job {job!r} is unknown; expected one of {', '.join(_JOBS)}")
    if not isinstance(addresses, list):
        raise ValueError(f"{job} is {addresses!r}; expected a list of addresses")
    if job == "chief" and len(addresses) > 1:
        raise ValueError(f"expected one chief, got {len(addresses)}")
    for address in addresses:
        port = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if port is None or not 1 <= int(port["port"]) <= _LAST_PORT:
            raise ValueError(
                f"{job} is {address!r}; expected host:port with a port of 1 to {_LAST_PORT} and "
                "without a scheme such as http://"
            )


def is_chief() -> bool:
    """Returns whether this process is the one that writes: the only one, or the first worker."""
    cluster = read_cluster()
    return cluster is None or cluster.index == 0


def wait_for(find: Callable[[], Found | None], what: str) -> Found:
    """Waits for something that the chief creates, and returns it.

    Args:
      find: returns it, or None while it does not exist.
      what: its name, for the log.
    """
    began = logged = time.monotonic()
    while True:
        found = find()
        if found is not None:
            return found
        if time.monotonic() - logged >= _LOG_SECONDS:
            logged = time.monotonic()
            logging.info("waiting for the chief to create %s, %.0f s so far", what, logged - began)
        time.sleep(_POLL_SECONDS)
