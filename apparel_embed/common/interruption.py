"""Handling of SIGTERM, which precedes a preemption, and of SIGINT (Ctrl-C)."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOPPED = 75
"""Exit status after SIGTERM, EX_TEMPFAIL: the same command resumes."""
INTERRUPTED = 130
"""Exit status after SIGINT, as in a shell: 128 + 2."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """Raised on SIGTERM; the process ends with status `STOPPED` once its blocks are left."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise `Stopped` in the main thread, as SIGINT raises KeyboardInterrupt.

    Blocks are then left in order: worker processes end, and temporary files are removed.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Deferral:
    """Signals held back by `deferred`."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal is waiting."""
        return self._received is not None

    def request(self) -> None:
        """Makes a SIGTERM wait here too: one is waiting in a process that trains with this one."""
        if self._received is None:
            self._received = signal.SIGTERM

    def obey(self) -> None:
        """Raises the waiting signal, if any; then it does not return."""
        self._restore()
        if self._received is not None:
            received, self._received = self._received, None
            signal.raise_signal(received)

    def _defer(self) -> None:
        # Python handles signals in the main thread only, and only that thread may set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # A process that ignores a signal (nohup, shell background) must not stop on it.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
        elif number == signal.SIGINT:
            # Ctrl-C while a signal is waiting: the user does not want to wait.
            self._received = number
            self.obey()


@contextlib.contextmanager
def deferred() -> Iterator[Deferral]:
    """Holds back SIGTERM and SIGINT until the block calls `obey`, or ends.

    Yields:
      The deferral: `requested` is true while a signal is waiting.
    """
    deferral = Deferral()
    deferral._defer()
    try:
        yield deferral
    except BaseException:
        # Any exception ends the work too.
        deferral._restore()
        raise
    deferral.obey()
