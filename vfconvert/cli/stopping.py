"""What a training says at once of Ctrl-C and SIGTERM, which it notes and follows when its step or validation ends."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vfconvert.training import signals

_END = b"\0"  # the number of no signal


@contextmanager
def telling_of_stops(*, quiet: bool) -> Iterator[None]:
    """Within, the first signal that a training notes is answered on stderr; nothing when quiet or in other threads.

    By another thread, since handlers of signals wait for what the main one computes.
    """
    if quiet or threading.current_thread() is not threading.main_thread():
        yield
        return
    came, told = socket.socketpair()
    came.setblocking(False)
    speaker = threading.Thread(target=_speak, args=(told,), daemon=True)
    speaker.start()
    before = signal.set_wakeup_fd(came.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        came.send(_END)  # closing it would not do: worker processes have it too
        speaker.join()
        came.close()
        told.close()


def _speak(told: socket.socket) -> None:
    said = False
    while (number := told.recv(1)) not in (_END, b""):
        if not said and number[0] in signals.KINDS and _is_noted(number[0]):
            said = True
            click.echo("Stopping when this step or validation ends ...", err=True)


def _is_noted(number: int) -> bool:
    """Whether a training is going on, which notes the signal."""
    return getattr(signal.getsignal(number), "__module__", "") == signals.__name__
