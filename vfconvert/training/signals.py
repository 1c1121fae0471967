"""SIGTERM and Ctrl-C while training: noted, so that the step ends, a checkpoint is written, and the way on is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

KINDS = (int(signal.SIGINT), int(signal.SIGTERM))


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
        """Within, the first signal is noted and the second does what it did before. In other threads nothing is."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in KINDS}

        def put_back() -> None:
            for each, handler in before.items():
                signal.signal(each, handler)

        def note(number: int, _: FrameType | None) -> None:
            self.number = number
            put_back()

        for each in KINDS:
            signal.signal(each, note)
        try:
            yield self
        finally:
            put_back()
