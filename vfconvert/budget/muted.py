"""Silence for solvers in C that write to the process's standard output, whatever they are told."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Within, nothing reaches the descriptor of standard output; what was written before has reached it."""
    _flush()
    try:
        kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is none
        yield
        return
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        _flush()  # C keeps back what it writes to a file or a pipe
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: no such library without a name
        ctypes.CDLL(None).fflush(None)
