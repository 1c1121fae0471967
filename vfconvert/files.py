"""Files: read with errors of ours; outputs refused early where they cannot be written, complete or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vfconvert.errors import NotAModelError, UnwritableOutputError, VfconvertError
from vfconvert.shortages import NO_ROOM, reason_of
from vfconvert.temporary import temporary_folder

_CHUNK_BYTES = 1 << 20
_OF_THE_DISK = NO_ROOM | {errno.EIO, errno.EROFS}
_LOST = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT}  # in the middle of a file


def check_writable(target: Path) -> None:
    """Raise `UnwritableOutputError` where `target` could not be written; leaves nothing behind.

    The folder is probed with a nameless temporary file, since mode bits tell neither about root, nor about
    read-only and full file systems. An existing regular file that may be written is accepted.
    """
    target = Path(os.path.realpath(target))
    folder = target.parent
    try:
        folder_mode = os.stat(folder).st_mode
    except FileNotFoundError:
        raise _unwritable(target, f"folder {folder} does not exist; create it first or choose another path") from None
    except OSError as error:
        raise _unwritable(target, f"{reason_of(error)}; choose another path") from error
    if not stat.S_ISDIR(folder_mode):
        raise _unwritable(target, f"{folder} is a file, expected a folder; choose another path")
    if target.is_dir():
        raise _unwritable(target, "it is a folder, expected a file name; add one")
    if target.exists() and not target.is_file():
        raise _unwritable(target, "it is a device or pipe, expected a regular file; choose another path")
    if target.exists() and not os.access(target, os.W_OK):
        raise _unwritable(target, "the file there is read-only; remove it or choose another path")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"folder {folder} takes no new file ({reason_of(error)}); choose another path"
        raise _unwritable(target, reason) from error


def check_own_name(path: Path, flag: str) -> None:
    """Raise `UnwritableOutputError` where a name that nobody gave is a link, as whoever gave the model may have laid.

    `flag` is what names it, and then a link is followed.
    """
    if path.is_symlink():
        raise _unwritable(path, f"it is a symbolic link to {os.readlink(path)}; name it by {flag}, or remove it")


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` to write to: renamed to it on success, removed on any failure.

    Whatever stood at `target` stays untouched until the rename, before which all is on the disk. The temporary path
    has the name of `target`, in a folder of its own (see `vfconvert.temporary`); a symbolic link is followed, so that
    it goes on being one. What appears may be read and written by whom the system's mask lets.
    Raises `UnwritableOutputError` before the body runs, as `check_writable` does, and where writing, within the body
    too, or the rename fails. Errors of ours out of the body name the target, not the temporary path.
    """
    check_writable(target)
    final = Path(os.path.realpath(target))
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(final.parent))
        except OSError as error:
            raise _unwritable(target, f"{reason_of(error)}; choose another path") from error
        temporary = folder / final.name
        try:
            yield temporary
        except VfconvertError as error:
            error.args = tuple(_renamed(argument, temporary, target) for argument in error.args)
            raise
        except OSError as error:
            within = error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(folder)
            if error.errno in NO_ROOM or (within and (error.errno in _OF_THE_DISK or error.filename is not None)):
                raise _unwritable(target, f"{reason_of(error)}; make room or choose another path") from error
            raise
        try:
            os.chmod(temporary, _usual_mode(folder))
            _to_disk(temporary)
            os.replace(temporary, final)
        except OSError as error:
            raise _unwritable(target, f"{reason_of(error)}; choose another path") from error


class Discarded(Exception):  # noqa: N818
    """Raised within `atomic_path`, and suppressed outside, to leave without the file appearing; no error."""


def read_head(path: Path, count: int, expected: str) -> bytes:
    """The first `count` bytes of a model file; `expected` says in messages what the file should be.

    Raises `NotAModelError` where the path is missing, a folder, a device, or cannot be read.
    """
    try:
        if path.is_dir():
            raise NotAModelError(f"{path}: is a folder, {expected}; name the file in it")
        if not path.exists():
            raise NotAModelError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise NotAModelError(f"{path}: is a device or pipe, {expected}; choose another file")
        with path.open("rb") as file:
            return file.read(count)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise NotAModelError(
            f"{path}: cannot be read ({reason.lower()}); check the path and its permissions"
        ) from error


@contextlib.contextmanager
def read_to_its_end(path: Path) -> Iterator[None]:
    """Within, a disk or share that fails in the middle of a model file is an error of ours: `NotAModelError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LOST:
            raise
        raise NotAModelError(
            f"{path}: cannot be read to its end ({reason_of(error)}); check the disk or share that it lies on"
        ) from error


def read_small(path: Path, most_bytes: int, what: str, flag: str, error: type[VfconvertError]) -> bytes:
    """A file that people edit, whole. `what` it should be and the `flag` that writes one are for the message.

    Raises `error` where it cannot be read, is no regular file or holds more than `most_bytes`.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: is no regular file, expected a {what}; name the file that {flag} wrote")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except (OSError, ValueError) as unreadable:  # ValueError: a path with a null character
        reason = getattr(unreadable, "strerror", None) or str(unreadable)
        raise error(f"{path}: the {what} cannot be read ({reason.lower()}); check the path") from unreadable
    if len(content) > most_bytes:
        raise error(f"{path}: got more than {most_bytes:,} bytes, expected a {what}, which is smaller")
    return content


@contextlib.contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO | None]:
    """A file open for reading, or None where it is a pipe or device, which may block, or never end. Raises `OSError`.

    What is open is asked, not the path, which could be another file by then.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer

    with open(path, "rb", opener=at_once) as file:
        yield file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def read_regular(path: Path, most_bytes: int) -> bytes | None:
    """A regular file, whole; None for anything else, and for one of more than `most_bytes`. Raises `OSError`."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size if file is not None else 0
        return file.read(size) if file is not None and size <= most_bytes else None


def sha256_of(*paths: Path) -> str:
    """The SHA-256 digest of a file, or of several one after another, as 64 hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _usual_mode(folder: Path) -> int:
    """That of a new file: writers of libraries choose others. Asking for the mask would change it for all threads."""
    probe = folder / "mode"
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink()


def _to_disk(path: Path) -> None:
    """Only now do network and full disks tell that something is missing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renamed(said: object, temporary: Path, target: Path) -> object:
    if not isinstance(said, str):
        return said
    return said.replace(str(temporary), str(target)).replace(str(temporary.parent), str(target.parent))


def _unwritable(target: Path, reason: str) -> UnwritableOutputError:
    return UnwritableOutputError(f"cannot write {target}: {reason}")
