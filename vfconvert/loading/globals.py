"""What the pickles of a file of torch.save ask for, told without building anything."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, cast

import torch

from vfconvert.errors import TruncatedModelError, UntrustedModelError
from vfconvert.loading.archives import DamagedArchiveError, StrangeArchiveError, check_records, opened, place_of
from vfconvert.loading.opcodes import OpcodeError, Traced, traced
from vfconvert.loading.sniffing import DATA_RECORD, FileKind, record_names

_LEGACY_PICKLES = 5  # magic number, protocol, machine, the object, the keys of its storages
_ALIGNED = 16  # bytes, of the widest number; torch itself aligns to 64
_LARGEST_PICKLE = 256 * 2**20  # bytes


@dataclass(frozen=True, eq=False)
class Asked:
    """What a file's pickles do, and how many bytes there are for what they store.

    `records` has the sizes of an archive's records by name below its folder, and is None in the layout of one stream.
    `mappable`: all of them begin where numbers may, so that memory can be mapped to the file.
    """

    traced: Traced
    records: Mapping[str, int] | None
    bytes: int
    mappable: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The dotted names that are asked for, outermost object first, each once."""
        return tuple(self.traced.names)


def asked_by(file: IO[bytes], kind: FileKind, where: str) -> Asked:
    """Follow the pickles of a file; `where` starts the messages.

    Raises `TruncatedModelError` where they do not make sense, and `UntrustedModelError` where they never end or the
    archive is one of torch.save's in name only.
    """
    try:
        if kind is FileKind.ZIP:
            return _asked_by_archive(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # reads no further than its end
            found = Traced()
            for _ in range(_LEGACY_PICKLES):
                traced(cast(IO[bytes], mapped), found)
            return Asked(found, None, len(mapped), False)
    except (OpcodeError, StrangeArchiveError) as error:
        raise UntrustedModelError(f"{where}: cannot be read safely: {error}; save it again with torch.save") from error
    except Exception as error:  # zipfile and pickletools raise many types on damaged bytes
        what = str(error) if isinstance(error, DamagedArchiveError) else "a pickle that makes no sense"
        raise TruncatedModelError(f"{where}: cut off or damaged ({what}); download or save it again") from error


def _asked_by_archive(file: IO[bytes]) -> Asked:
    archive = opened(file)
    check_records(archive)
    names = record_names(archive)
    sizes = {name: archive.getinfo(full).file_size for name, full in names.items()}
    if sizes[DATA_RECORD] > _LARGEST_PICKLE:
        raise OpcodeError(f"a pickle of {sizes[DATA_RECORD]:,} bytes")
    places = [place_of(file, archive.getinfo(full)) for name, full in names.items() if name.startswith("data/")]
    mappable = all(place % _ALIGNED == 0 for place in places)
    return Asked(traced(io.BytesIO(archive.read(names[DATA_RECORD]))), sizes, sum(sizes.values()), mappable)


def not_safe_by_default(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that `torch.load(weights_only=True)` does not know by itself, in the same order."""
    # torch answers this for archives only, so it gets one that names just these.
    opcodes = b"".join(b"c" + b"\n".join([*_split(name), b""]) for name in names)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"names/{DATA_RECORD}", b"\x80\x02" + opcodes + b".")
        file.writestr("names/version", "3\n")
    archive.seek(0)
    unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(archive))
    return tuple(name for name in names if name in unsafe)


def _split(name: str) -> tuple[bytes, bytes]:
    module, _, attribute = name.rpartition(".")
    return module.encode(), attribute.encode()
