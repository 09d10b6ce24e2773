"""The processes that train together, as TF_CONFIG names them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from apparel_embed.errors import UserError

VARIABLE = "TF_CONFIG"
_POLL_SECONDS = 0.5
_TELL_SECONDS = 60.0
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
      workers: "host:port" of each, the chief first.
      index: which of them this process is; 0 is the chief, which alone writes.
    """

    workers: tuple[str, ...]
    index: int


def read_cluster() -> Cluster | None:
    """Returns what TF_CONFIG in the environment says; None if it is not set or empty.

    Raises:
      UserError: if it does not name workers, and which of them this process is.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        config = json.loads(text)
        named = config["cluster"]
        kind, index = config["task"]["type"], int(config["task"]["index"])
        workers = (*named.get("chief", []), *named.get("worker", []))
        # A cluster's chief, if it names one, comes before the workers.
        place = index + (len(named.get("chief", [])) if kind == "worker" else 0)
        address = named[kind][index] if index >= 0 else None
        if kind not in ("chief", "worker") or workers[place] != address:
            raise ValueError(f"task {kind} {index} is none of the cluster's workers")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"{VARIABLE}={text!r}: is no cluster of workers ({error!r}); allowed is "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            "with the index of this process"
        ) from error
    return Cluster(tuple(workers), place)


def is_chief() -> bool:
    """Returns whether this process is the one that writes: it is alone, or the first of them."""
    cluster = read_cluster()
    return cluster is None or cluster.index == 0


def wait_for(find: Callable[[], Found | None], what: str) -> Found:
    """Returns what the chief is to make, once it is there.

    Args:
      find: returns it, or None as long as it is missing.
      what: name of it, for the log.
    """
    began = told = time.monotonic()
    while True:
        found = find()
        if found is not None:
            return found
        if time.monotonic() - told >= _TELL_SECONDS:
            told = time.monotonic()
            logging.info("waiting for the chief to make %s, %.0f s so far", what, told - began)
        time.sleep(_POLL_SECONDS)
