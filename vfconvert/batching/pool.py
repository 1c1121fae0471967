"""A bounded pool of processes that starts another only where there is memory for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from vfconvert.container import memory_left

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 60.0  # for a training to write its checkpoint
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One process: its command, where its output goes, and the bytes of memory that it will take, by estimate."""

    number: int
    command: tuple[str, ...]
    output: Path
    errors: Path
    need: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a process ended; a negative `exit_code` is the signal that ended it."""

    number: int
    exit_code: int
    seconds: float
    peak_bytes: int | None


def free_bytes() -> int:
    """Memory that a new process could take: of the machine, or of the container where that has less."""
    machine, container = int(psutil.virtual_memory().available), memory_left()
    return machine if container is None else min(machine, container)


def run_all(
    jobs: Sequence[Job],
    most: int,
    *,
    threads: int,
    without: Sequence[str] = (),
    free: Callable[[], int] = free_bytes,
    begun: Callable[[int], None] = lambda number: None,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Ended]:
    """Run the jobs, at most `most` at a time, in their order; tell of each as it ends, in the order of ending.

    While there is no memory for the next, nothing is started, unless nothing runs. What still runs when the caller
    leaves is ended: by SIGTERM, and where that does not help by SIGKILL. `begun` is told just before every start.
    Processes get this one's environment but for the names `without`.
    """
    waiting, running = list(jobs), dict[int, _Running]()
    try:
        while waiting or running:
            while waiting and len(running) < most and _fits(waiting[0], running, free):
                job = waiting.pop(0)
                begun(job.number)
                with _no_signals():
                    running[job.number] = _Running(job, threads, without)
            for number, process in list(running.items()):
                if (ended := process.ended()) is not None:
                    del running[number]
                    yield ended
            idle()
            time.sleep(_POLL_SECONDS if running else 0)
    finally:
        _end(list(running.values()))


def _fits(job: Job, running: dict[int, _Running], free: Callable[[], int]) -> bool:
    promised = sum(process.still_needed() for process in running.values())
    return not running or free() - promised >= job.need


class _Running:
    def __init__(self, job: Job, threads: int, without: Sequence[str]) -> None:
        self._job, self._begun = job, time.perf_counter()
        # The same package as here, wherever it was imported from.
        paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": paths}
        for name in without:
            environment.pop(name, None)
        with job.output.open("wb") as output, job.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment,
                preexec_fn=partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,
            )

    def still_needed(self) -> int:
        """Bytes that the process has not taken yet, by estimate."""
        try:
            return max(0, self._job.need - int(psutil.Process(self.process.pid).memory_info().rss))
        except psutil.Error:
            return 0

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        peak = None
        if hasattr(os, "wait4"):
            found, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if found == 0:
                return None
            self.process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # Linux counts in KiB
        elif self.process.poll() is None:
            return None
        return Ended(
            number=self._job.number,
            exit_code=self.process.returncode,
            seconds=time.perf_counter() - self._begun,
            peak_bytes=peak,
        )


@contextlib.contextmanager
def _no_signals() -> Iterator[None]:
    """Within, what ends this process waits: raised in a fork's own callbacks, an exception would be lost.

    Handlers are exchanged, and no signal is blocked: that would be of one thread, and another would take it.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    known = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in known:
        signal.signal(number, lambda got, _: came.append(got))
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        for again in came:
            signal.raise_signal(again)


def _end_with_parent(parent: int) -> None:
    """In the new process: when its parent is killed, the kernel ends it too, so that a second run is alone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # killed before that
        os._exit(1)


def _end(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for one in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
