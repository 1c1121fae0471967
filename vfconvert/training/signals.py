"""SIGTERM and Ctrl-C while training: noted, so that the step ends, a checkpoint is written, and the way on is said."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

KINDS = (int(signal.SIGINT), int(signal.SIGTERM))
_AGAIN = 2.0  # seconds after which a signal is meant anew: timeout(1), torchrun and a terminal send one several times


class TrainingInterrupted(KeyboardInterrupt):
    """A run stopped by a signal after its checkpoint was written; the message says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number  # of the signal


class Signals:
    """`number` is that of the signal which came, 0 before any."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def noted(self) -> Iterator[Signals]:
        """Within, the first signal is noted; one that comes two seconds later or more does what it did before.

        In other threads nothing is noted.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in KINDS}
        came = 0.0

        def put_back() -> None:
            for each, handler in before.items():
                signal.signal(each, handler)

        def note(number: int, _: FrameType | None) -> None:
            nonlocal came
            if not self.number:
                self.number, came = number, time.monotonic()
            elif time.monotonic() - came >= _AGAIN:
                put_back()
                signal.raise_signal(number)

        for each in KINDS:
            signal.signal(each, note)
        try:
            yield self
        finally:
            put_back()
