"""The table of contents of a zip archive, checked before any record of it is read."""

from __future__ import annotations

import errno
import struct
import zipfile
from pathlib import PurePosixPath
from typing import IO

_END, _END_64, _LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_LARGEST_TABLE = 64 * 2**20  # bytes; some 700,000 records


class DamagedArchiveError(Exception):
    """An archive that was cut off or damaged; the message says how."""


class StrangeArchiveError(Exception):
    """An archive as torch writes none: a bomb, or one that two readers would read differently."""


def opened(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive in a file, its records not looked at. Raises `DamagedArchiveError` and `StrangeArchiveError`."""
    _check_table(file, file.seek(0, 2))
    try:
        return zipfile.ZipFile(file)
    except Exception as error:  # a damaged table of contents raises many types
        raise DamagedArchiveError("a zip archive of a damaged table of contents") from error


def check_records(archive: zipfile.ZipFile) -> None:
    """Records are stored as they are, one beside the other, so that none is larger than the file, in one folder.

    Raises `DamagedArchiveError` and `StrangeArchiveError`.
    """
    if archive.fp is not None:  # always, while it is open
        _check_places(archive.infolist(), archive.fp.seek(0, 2))


def place_of(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """Where in the file the bytes of a record begin."""
    file.seek(record.header_offset)
    fields = _LOCAL.unpack(file.read(_LOCAL.size))
    return record.header_offset + _LOCAL.size + int(fields[-2]) + int(fields[-1])


def _check_table(file: IO[bytes], size: int) -> None:
    """The table ends the file, so that every reader finds the same one, and has a sensible size."""
    try:
        file.seek(size - _END.size)
        signature, *_, length, start, comment = _END.unpack(file.read(_END.size))
        if signature != b"PK\x05\x06" or comment:
            raise DamagedArchiveError("a zip archive without its end")
        if 0xFFFFFFFF in (length, start):
            file.seek(size - _END.size - _LOCATOR_64.size)
            _, _, place, _ = _LOCATOR_64.unpack(file.read(_LOCATOR_64.size))
            file.seek(place)
            length = _END_64.unpack(file.read(_END_64.size))[-2]
    except (OSError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place before the file's begin
            raise
        raise DamagedArchiveError("a zip archive without its end") from error
    if length > size:
        raise DamagedArchiveError("a zip archive of a damaged table of contents")
    if length > _LARGEST_TABLE:
        raise StrangeArchiveError(f"a table of contents of {length:,} bytes")


def _check_places(records: list[zipfile.ZipInfo], size: int) -> None:
    names, free = set[str](), 0
    for record in sorted(records, key=lambda one: one.header_offset):
        name = record.filename
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            raise StrangeArchiveError(f"{name[:80]!r} is compressed, which torch never does")
        if record.header_offset < free or record.file_size != record.compress_size or name in names:
            raise StrangeArchiveError(f"{name[:80]!r} is in it twice, or shares its bytes with another")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise StrangeArchiveError(f"{name[:80]!r} leaves its folder")
        names.add(name)
        free = record.header_offset + _LOCAL.size + record.compress_size
        if free > size:
            raise DamagedArchiveError(f"{name[:80]!r} ends after {size:,} bytes")
    if len({name.partition("/")[0] for name in names if "/" in name}) > 1:
        raise StrangeArchiveError("several folders at the top")
