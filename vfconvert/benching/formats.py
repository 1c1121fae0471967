"""What kind of model file this is, by its first bytes and its table of contents, before anything in it is run.

Nothing here or later builds arbitrary objects from a pickle. `torch.jit.load` reads its own with a reader that builds
tensors and TorchScript's objects only; a torch.export program that holds anything beyond tensors is refused.
"""

from __future__ import annotations

import enum
import zipfile
from pathlib import Path

from vfconvert.errors import EmptyModelError, NotAModelError, TruncatedModelError, UntrustedModelError
from vfconvert.files import read_head

_HEAD_BYTES = 64
_ZIP = b"PK\x03\x04"
_PROTOBUF = b"\x08"  # field 1, the version of the ONNX format, comes first
_EXPECTED = "expected an .onnx, a TorchScript or a torch.export (.pt2) file"
_PROGRAM_RECORDS = ("archive_format", "serialized_exported_program.json")
_TORCHSCRIPT_RECORD = "constants.pkl"
_RUNS_CODE = {
    "data/aotinductor/": "compiled libraries",
    "data/constants/opaque_obj_": "pickled Python objects",
    "data/constants/custom_obj_": "custom C++ objects",
}


class FileFormat(enum.Enum):
    """The formats that are run; the value is what reports call them."""

    ONNX = "onnx"
    PROGRAM = "program"
    TORCHSCRIPT = "torchscript"


def sniff_format(path: Path) -> FileFormat:
    """The format of a file that a runtime runs.

    Raises `NotAModelError` (missing, a folder, unreadable, or another file, one of torch.save too), `EmptyModelError`,
    `TruncatedModelError`, and `UntrustedModelError` for a torch.export archive that holds code or objects.
    """
    head = read_head(path, _HEAD_BYTES, _EXPECTED)
    if not head:
        raise EmptyModelError(f"{path}: the file is empty (0 bytes), {_EXPECTED}; export it again")
    if head.startswith(_ZIP):
        return _archive_format(path)
    if path.suffix.lower() == ".onnx" or head.startswith(_PROTOBUF):
        return FileFormat.ONNX
    raise NotAModelError(f"{path}: is in no format that is known here, {_EXPECTED}; choose another file")


def _archive_format(path: Path) -> FileFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a damaged table of contents raises many types
        raise TruncatedModelError(
            f"{path}: a zip archive without its end (cut off or damaged); download or export it again"
        ) from error
    records = {name.partition("/")[2] for name in names} | set(names)
    if any(record in records for record in _PROGRAM_RECORDS):
        _check_program(path, records)
        return FileFormat.PROGRAM
    if _TORCHSCRIPT_RECORD in records:
        return FileFormat.TORCHSCRIPT
    if "data.pkl" in records:
        raise NotAModelError(f"{path}: is a pickle of torch.save, which no runtime opens, {_EXPECTED}; export it first")
    raise NotAModelError(f"{path}: a zip archive that holds no network, {_EXPECTED}; choose another file")


def _check_program(path: Path, records: set[str]) -> None:
    for prefix, what in _RUNS_CODE.items():
        if any(record.startswith(prefix) for record in records):
            raise UntrustedModelError(
                f"{path}: the torch.export archive holds {what}, expected tensors only; "
                "save the exported program itself by torch.export.save"
            )
