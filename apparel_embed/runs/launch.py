"""Starts the processes of a cluster on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from apparel_embed.common.cluster import VARIABLE
from apparel_embed.common.errors import UserError

_POLL_SECONDS = 0.1


def launch_local(command: Sequence[str], workers: int, grace_seconds: float = 10.0) -> None:
    """Runs a command in several processes that train together; returns when all have exited.

    Each has TF_CONFIG in its environment, with loopback addresses. Its lines of output are printed
    with its name as a prefix.

    Args:
      command: program and arguments.
      workers: number of processes, 1 or more.
      grace_seconds: time to exit after another process has failed, before being killed.

    Raises:
      UserError: the command cannot be started, or a process fails. The message names the first
        process that fails; the others are stopped.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    processes: list[subprocess.Popen[str]] = []
    threads = []
    try:
        with _ended(processes, grace_seconds):
            for index in range(workers):
                process = _start(command, addresses, index)
                processes.append(process)
                for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                    threads.append(threading.Thread(target=_pass_on, args=(source, target, index)))
                    threads[-1].start()
            _wait(processes)
    finally:
        # Print all output before the error that names the failed process.
        for thread in threads:
            thread.join()


def _start(command: Sequence[str], addresses: Sequence[str], index: int) -> subprocess.Popen[str]:
    config = {
        "cluster": {"worker": list(addresses)},
        "task": {"type": "worker", "index": index},
    }
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, VARIABLE: json.dumps(config)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Only this process receives Ctrl-C; it stops the others.
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{command[0]}: could not be started ({error})") from error


def _wait(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Returns when all processes have exited; raises a UserError as soon as one fails."""
    while True:
        states = [process.poll() for process in processes]
        for index, state in enumerate(states):
            if state:
                raise UserError(
                    f"worker {index} of {len(processes)} {_ending(state)}; the others were "
                    f"stopped. Its output is above, in the lines that begin with [worker {index}]"
                )
        if None not in states:
            return
        time.sleep(_POLL_SECONDS)


def _ending(state: int) -> str:
    if state < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-state).name}"
    return f"failed with exit status {state}"


@contextlib.contextmanager
def _ended(processes: Sequence[subprocess.Popen[str]], grace_seconds: float) -> Iterator[None]:
    """Stops all processes and their children when the block exits."""
    try:
        yield
    finally:
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _pass_on(source: IO[str], target: IO[str], index: int) -> None:
    for line in source:
        target.write(f"[worker {index}] {line.rstrip()}\n")
        target.flush()


def _free_ports(count: int) -> list[int]:
    """Returns free loopback ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        # The sockets stay open until all are bound, so that the ports differ.
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
