"""Keeping an exporter quiet: its warnings, log records and prints, with all put back as they were afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TextIO, cast

_STDOUT = 1  # its descriptor


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within the block no warning is shown or raised, no record logged, and this thread prints nothing.

    Exceptions pass through. What other threads print, a progress bar's refresh, goes on being shown.
    """
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(cast(TextIO, _Muted(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, _Muted(sys.stderr))),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def stdout_closed() -> Iterator[None]:
    """Within the block what is written to the process's standard output is lost, by C++ and other threads too.

    torch's older ONNX exporter prints the graph of a network that it cannot write there, past `sys.stdout`.
    """
    sys.stdout.flush()  # what was printed before is not lost
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed already
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


class _Muted:
    """A stream that drops what the thread that made it writes; all else is the stream behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
