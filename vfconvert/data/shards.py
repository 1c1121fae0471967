"""Examples in WebDataset shards: plain tar archives in which the files of one example share a key.

The key is a member's path up to the first dot of its file name, the rest says what the member holds: `0001.jpg` the
image and `0001.cls` its class, an integer in ASCII. Other members (`0001.json`) are not read. The headers are read
once, and an image is then found by its offset, so that examples can be read in any order; nothing is ever extracted.
"""

from __future__ import annotations

import glob
import io
import itertools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from vfconvert.data.decoding import decode_image
from vfconvert.data.folder import IMAGE_SUFFIXES
from vfconvert.errors import NoImagesError, UnreadableImageError, first_line

_LARGEST_IMAGE, _LONGEST_LABEL = 2**28, 32  # bytes
_MOST_SHARDS = 100_000
_MOST_CLASSES = 1_000_000  # far above any data set; targets and counts are as wide as there are classes
_END_MARKER, _AFTER_END = 1024, 2**16  # bytes: two zero blocks end an archive, padding follows
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class ShardExamples:
    """Images in shards; `passed_over` counts links, odd paths and keys without an image, which are not used."""

    root: str
    shards: tuple[Path, ...]
    members: tuple[str, ...]
    places: Tensor  # (N, 4) int64: number of the shard, offset and size in bytes, class or -1
    passed_over: int

    @property
    def classes(self) -> int:
        """One more than the largest class; 0 without `.cls` members."""
        return int(self.places[:, 3].max()) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: shards hold numbers."""
        return ()

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        """The shard and the image's path inside it."""
        return f"{self.shards[int(self.places[index, 0])]}:{self.members[index]}"

    def read(self, index: int) -> tuple[Image.Image, int | None]:
        """The image and its class. Raises `UnreadableImageError`, also for an image above 256 MiB."""
        shard, offset, size, label = self.places[index].tolist()
        name = self.name(index)
        if size > _LARGEST_IMAGE:
            raise UnreadableImageError(f"cannot decode the image {name}: {size} bytes, expected at most 256 MiB")
        try:
            with self.shards[shard].open("rb") as file:  # a handle kept open would be shared with forked workers
                encoded = _bytes_at(file, offset, size)
        except OSError as error:
            raise UnreadableImageError(f"cannot read {name}: {first_line(error)}; restore the shard") from error
        if len(encoded) < size:
            raise UnreadableImageError(f"cannot read {name}: the shard has become shorter; restore it")
        return decode_image(io.BytesIO(encoded), name), None if label == _NO_LABEL else label

    def labels(self) -> tuple[int, ...] | None:
        """The class of every image; `None` without `.cls` members."""
        return tuple(self.places[:, 3].tolist()) if self.classes else None


def open_shards(where: str) -> ShardExamples:
    """Index the shards that a pattern names: `train-{0000..0003}.tar`, `{a,b}.tar`, `shards/*.tar` or one path.

    Raises `NoImagesError` where a shard is missing or none holds an image, or where only some images have a class;
    `UnreadableImageError` where a shard is compressed, damaged, or has two images under one key.
    """
    shards = _shards(where)
    members: list[str] = []
    places: list[tuple[int, int, int, int]] = []
    passed_over = 0
    for number, path in enumerate(shards):
        entries, passed_over_here = _index(path)
        passed_over += passed_over_here
        for entry in entries:
            if entry.member:
                members.append(entry.member)
                places.append((number, entry.offset, entry.size, entry.label))
            else:
                passed_over += 1
    if not members:
        raise NoImagesError(f"no images in {where}: looked in {len(shards)} shard(s) for {_suffixes()}")
    unlabelled = [name for name, place in zip(members, places, strict=True) if place[3] == _NO_LABEL]
    if 0 < len(unlabelled) < len(members):
        raise NoImagesError(
            f"{len(unlabelled)} of {len(members)} images in {where} have no .cls beside them, the first is "
            f"{unlabelled[0]}; give a class to all or to none"
        )
    return ShardExamples(where, shards, tuple(members), torch.tensor(places, dtype=torch.int64), passed_over)


@dataclass
class _Entry:
    """What is known of one key while its shard is indexed."""

    member: str = ""
    offset: int = 0
    size: int = 0
    label: int = _NO_LABEL


def _index(path: Path) -> tuple[list[_Entry], int]:
    """The keys of a shard in the order in which they first occur, and how many members were passed over."""
    entries: dict[str, _Entry] = {}
    passed_over = 0
    try:
        with path.open("rb") as file:
            for member in _regular_members(path, file):
                key, kind = ("", "") if member is None else _key(member.name)
                if member is None or not key:
                    passed_over += 1
                else:
                    _note(path, file, member, entries.setdefault(key, _Entry()), kind)
    except RecursionError as error:  # tarfile calls itself for each header that only names the next
        raise _damaged(path, "a header follows too many others that only name it; write it again") from error
    except MemoryError as error:
        raise _damaged(path, "a header has a name that is longer than the memory; write it again") from error
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        raise _damaged(path, first_line(error)) from error
    return list(entries.values()), passed_over


def _key(name: str) -> tuple[str, str]:
    """What the files of one example share, and what this one holds; no key for hidden files and odd paths."""
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    odd = name.startswith("/") or ".." in folder.split("/") or not stem
    return ("", "") if odd else (folder + slash + stem, kind.lower())


def _note(path: Path, file: BinaryIO, member: tarfile.TarInfo, entry: _Entry, kind: str) -> None:
    if f".{kind}" in IMAGE_SUFFIXES:
        if entry.member:
            raise _damaged(path, f"{entry.member} and {member.name} are two images under one key")
        entry.member, entry.offset, entry.size = member.name, member.offset_data, member.size
    elif kind == "cls":
        text = _bytes_at(file, member.offset_data, min(member.size, _LONGEST_LABEL)).strip()
        if member.size > _LONGEST_LABEL or not text.isdigit() or int(text) >= _MOST_CLASSES:
            raise _damaged(
                path,
                f"{member.name} holds {text.decode(errors='replace')!r}, expected a class from 0 to "
                f"{_MOST_CLASSES - 1:,}; correct it",
            )
        entry.label = int(text)


def _regular_members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo | None]:
    """Every plain file of an archive, and `None` for a link, device or sparse file."""
    start = file.read(8)
    for magic, compression in _COMPRESSIONS.items():
        if start.startswith(magic):
            raise _damaged(path, f"it is compressed with {compression}, which cannot be read out of order; unpack it")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        position = -1
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or every header would stay in memory
            if member.size < 0 or member.offset <= position:  # such headers would be read again and again
                raise _damaged(path, f"the header at byte {member.offset} is wrong")
            position = member.offset
            if member.isdir():
                continue
            yield member if member.isreg() and not member.issparse() else None
        end = _bytes_at(file, archive.offset, _AFTER_END)
    # tarfile takes a broken header for the end of the archive, and does not miss the end marker
    if any(end):
        raise _damaged(path, "a header in the middle is wrong, or archives were joined; write it again")
    if len(end) < _END_MARKER:
        raise _damaged(path, "it is cut short: the end marker is missing; copy or write it again")


def _bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _damaged(path: Path, reason: str) -> UnreadableImageError:
    return UnreadableImageError(f"cannot read the shard {path}: {reason}")


def _shards(where: str) -> tuple[Path, ...]:
    """The paths of a pattern, in order: braces first, as a shell does, then wildcards."""
    paths: list[Path] = []
    for pattern in _expanded(where):
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).is_file() else [pattern]
        paths.extend(Path(name) for name in found)
    missing = [path for path in paths if not path.is_file()]
    if not paths or missing:
        which = f"{len(missing)} of {len(paths)} are missing, the first is {missing[0]}" if missing else "none is there"
        raise NoImagesError(f"cannot read the shards {where}: {which}; check the pattern")
    return tuple(paths)


def _expanded(pattern: str) -> list[str]:
    """`a{1..3}` as `a1 a2 a3` with the zeros of the first number kept, and `{x,y}` as `x y`."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    product = itertools.islice(itertools.product(*choices), _MOST_SHARDS + 1)
    expanded = ["".join(combination) for combination in product]
    if len(expanded) > _MOST_SHARDS:
        raise NoImagesError(f"the shards {pattern} are more than {_MOST_SHARDS:,}; check the numbers in braces")
    return expanded


def _choices(inside: str) -> list[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    if int(last) - int(first) > _MOST_SHARDS:
        raise NoImagesError(f"the shards {{{inside}}} are more than {_MOST_SHARDS:,}; check the numbers in braces")
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
