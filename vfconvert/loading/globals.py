"""Which classes and functions a pickle names: read from its opcodes, nothing is built or imported."""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from vfconvert.errors import TruncatedModelError
from vfconvert.loading.sniffing import DATA_RECORD, FileKind, record_names

_LEGACY_PICKLES = 5  # magic number, protocol, machine, the object, the keys of its storages


def wanted_globals(path: Path, kind: FileKind) -> tuple[str, ...]:
    """The dotted names a file asks for, outermost object first, each once.

    Raises `TruncatedModelError` where the opcodes do not make sense.
    """
    try:
        if kind is FileKind.ZIP:
            with zipfile.ZipFile(path) as archive:
                pickled = archive.read(record_names(archive)[DATA_RECORD])
            names = list(_names(io.BytesIO(pickled)))
        else:
            with path.open("rb") as file:
                names = [name for _ in range(_LEGACY_PICKLES) for name in _names(file)]
    except Exception as error:  # zipfile and pickletools raise many types on damaged bytes
        raise TruncatedModelError(f"{path}: cut off or damaged; download or save it again") from error
    return tuple(dict.fromkeys(names))


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


def _names(file: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []  # pushed so far: protocol 4 takes module and name of a global from the stack
    memo: dict[int, str | None] = {}
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in {"GLOBAL", "INST"}:
            module, _, name = str(argument).partition(" ")
            yield _modern(module, name)
        elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
            yield f"{texts[-2]}.{texts[-1]}"
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        elif opcode.name in {"BINPUT", "LONG_BINPUT"}:
            memo[int(str(argument))] = last
            continue
        if opcode.name in {"BINGET", "LONG_BINGET"}:
            last = memo.get(int(str(argument)))
        else:
            last = argument if isinstance(argument, str) and "UNICODE" in opcode.name else None
        if last is not None:
            texts.append(last)


def _modern(module: str, name: str) -> str:
    """The name in Python 3 of what a pickle of protocol 2 names as Python 2 did."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[(module, name)]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"
