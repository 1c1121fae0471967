"""Temporary folders that are known to be in use: each is locked by its process, and the system lets go when that ends.

So whatever ends a process, the next one that writes to the same place can tell what is left of it and remove that,
while what another process is writing just now stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vfconvert.errors import UnwritableOutputError
from vfconvert.shortages import NO_ROOM, reason_of

_NAME = re.compile(r"\.vfconvert-[0-9a-f]{12}")
_TRIES = 100
_PATIENCE = 5.0  # seconds to wait for another process that renames its files


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, of this user alone, gone at the end; what ended processes have left there goes too.

    Raises `OSError` where no folder can be made.
    """
    remove_stale(parent)
    folder, lock = _made(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder where the system keeps such. Raises `UnwritableOutputError` where there is no room."""
    try:
        where = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UnwritableOutputError(f"no folder takes temporary files ({reason_of(error)}); set TMPDIR") from error
    try:
        with temporary_folder(Path(where)) as folder:
            yield folder
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UnwritableOutputError(
            f"cannot write to {where}: {reason_of(error)}; make room there or set TMPDIR to a larger disk"
        ) from error


def remove_stale(parent: Path) -> None:
    """Remove temporary folders whose process has ended. Says nothing where that cannot be told or done."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(parent) if _NAME.fullmatch(name)]
        for name in names:
            with contextlib.suppress(OSError), _opened(parent / name) as descriptor:
                if os.fstat(descriptor).st_uid == os.geteuid() and locked(descriptor):
                    shutil.rmtree(parent / name, ignore_errors=True)


def locked(descriptor: int) -> bool:
    """Lock an open file or folder for this process, without waiting; False where another one holds it.

    Raises `OSError` on a file system without locks: there nothing is ever taken for stale.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Within, an existing folder belongs to this process; False where another one has it."""
    with _opened(folder) as descriptor:
        try:
            mine = locked(descriptor)
        except OSError:  # where there are no locks nobody can tell
            mine = True
        yield mine


class Turn:
    """Lets processes that write to the same folders do so in turns, so that what one writes stays together."""

    def __init__(self, held: contextlib.ExitStack) -> None:
        """The turn ends with `held`."""
        self._held = held

    def take(self, folders: Iterable[Path]) -> None:
        """Wait for these folders: the moments that others take to rename files, and no longer than a few seconds."""
        end = time.monotonic() + _PATIENCE
        for folder in sorted({Path(os.path.realpath(folder)) for folder in folders}):
            with contextlib.suppress(OSError):
                descriptor = self._held.enter_context(_opened(folder))
                while not locked(descriptor) and time.monotonic() < end:
                    time.sleep(0.01)


def _made(parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    for _ in range(_TRIES):
        folder = parent / f".vfconvert-{secrets.token_hex(6)}"
        os.mkdir(folder, 0o700)
        # Another process may take it for stale in the moment before it is locked.
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            mine = locked(descriptor)
        except OSError:
            mine = True
        if mine and folder.exists():
            return folder, descriptor
        os.close(descriptor)
    raise FileNotFoundError(f"{parent}: every temporary folder in it is removed at once")


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
