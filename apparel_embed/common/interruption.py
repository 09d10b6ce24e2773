"""Being stopped: SIGTERM, as before a preemption, and SIGINT, which is Ctrl-C."""

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
"""Exit status after SIGINT, as of a shell: 128 + 2."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """SIGTERM came; the process ends with status `STOPPED` once its blocks are left."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise `Stopped` in the main thread, as SIGINT raises KeyboardInterrupt.

    So that blocks are left in order: worker processes end, and temporary files go.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Deferral:
    """Signals that wait, made by `deferred`."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal waits."""
        return self._received is not None

    def request(self) -> None:
        """Lets SIGTERM wait here, too, as one waits in a process that works together with this."""
        if self._received is None:
            self._received = signal.SIGTERM

    def obey(self) -> None:
        """Raises the signal that waits, if one does; does not return then."""
        self._restore()
        if self._received is not None:
            received, self._received = self._received, None
            signal.raise_signal(received)

    def _defer(self) -> None:
        # Python handles signals in the main thread only, and lets no other set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                # What ignores a signal (nohup, a shell's background) must not be stopped by it.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
        elif number == signal.SIGINT:
            # Ctrl-C while a signal waits: the user does not want to wait.
            self._received = number
            self.obey()


@contextlib.contextmanager
def deferred() -> Iterator[Deferral]:
    """Lets SIGTERM and SIGINT wait until the block looks, or ends.

    Yields:
      An event that is set when one waits; `obey` ends the waiting.
    """
    deferral = Deferral()
    deferral._defer()
    try:
        yield deferral
    except BaseException:
        # Whatever it is, it ends the work too.
        deferral._restore()
        raise
    deferral.obey()
