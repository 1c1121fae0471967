"""What kind of file this is, by its first bytes and its table of contents, before anything in it is interpreted."""

from __future__ import annotations

import enum
import zipfile
from pathlib import Path

from vfconvert.errors import (
    EmptyModelError,
    NotAModelError,
    TruncatedModelError,
    UnsupportedModelError,
    UntrustedModelError,
)
from vfconvert.files import read_head
from vfconvert.loading.archives import DamagedArchiveError, StrangeArchiveError, check_records, opened

_HEAD_BYTES = 64
_ZIP = b"PK\x03\x04"
_LEGACY_NUMBER = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # the first thing in a file of the old layout
_LEGACY = b"\x80\x02\x8a\x0a" + _LEGACY_NUMBER + b"."
_EXPECTED = "expected a file of torch.save or torch.export, a .safetensors or an .onnx file"
_LONGEST_HEADER = 100_000_000  # bytes; what the safetensors format allows

# Of protocol buffers: the version of ONNX's format as the first field, then producer, domain, graph or opset.
_ONNX_VERSION, _NEWEST_ONNX, _ONNX_FIELDS = b"\x08", 64, b"\x12\x1a\x22\x28\x32\x3a\x42"

_OTHER_FILES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
}
# TorchScript is not read, not even with --trust-pickle: torch.jit.load runs the archive's __setstate__ in an
# interpreter whose operators write files (aten::save), and what makes a program of it,
# torch._export.converter.TS2EPConverter, wants example inputs, runs the network, and is private to torch.
_OTHER_ARCHIVES = {
    "constants.pkl": (
        "a TorchScript archive",
        "torch.save the nn.Module it was made from, or write that with torch.export or torch.onnx.export",
    ),
    ".data/extern_modules": ("a torch.package archive", "torch.save the nn.Module it holds"),
}
_EXPORTED = ("archive_format", "serialized_exported_program.json")
DATA_RECORD = "data.pkl"


class FileKind(enum.Enum):
    """The formats that are read."""

    ZIP = "torch.save's archive"
    LEGACY = "torch.save's layout before torch 1.6"
    SAFETENSORS = "safetensors"
    EXPORTED = "torch.export's archive"
    ONNX = "ONNX"


def sniff(path: Path) -> FileKind:
    """The kind of a model file.

    Raises `NotAModelError` (missing, a folder, unreadable, some other file), `EmptyModelError` (no bytes),
    `TruncatedModelError` (starts like a model and ends too soon), `UnsupportedModelError` (TorchScript and
    torch.package archives) and `UntrustedModelError` (an archive that torch would not write).
    """
    head = read_head(path, _HEAD_BYTES, _EXPECTED)
    if not head:
        raise EmptyModelError(f"{path}: the file is empty (0 bytes), {_EXPECTED}; download or save it again")
    if head.startswith(_ZIP):
        return _sniff_archive(path)
    if _LEGACY_NUMBER in head:
        return FileKind.LEGACY
    length = int.from_bytes(head[:8], "little")
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and length <= _LONGEST_HEADER):
        return FileKind.SAFETENSORS
    starts_so = len(head) > 2 and head[:1] == _ONNX_VERSION and head[1] <= _NEWEST_ONNX and head[2] in _ONNX_FIELDS
    if starts_so or (path.suffix == ".onnx" and head[:1] == _ONNX_VERSION):
        return FileKind.ONNX
    if _ZIP.startswith(head) or _LEGACY.startswith(head):
        raise TruncatedModelError(f"{path}: ends after {len(head)} bytes, {_EXPECTED}; download or save it again")
    raise NotAModelError(f"{path}: {_describe(head)}, {_EXPECTED}; choose another file")


def record_names(archive: zipfile.ZipFile) -> dict[str, str]:
    """Records of an archive of torch.save, by their name without the top folder."""
    return {name.partition("/")[2]: name for name in archive.namelist()}


def _sniff_archive(path: Path) -> FileKind:
    try:
        with path.open("rb") as file, opened(file) as archive:
            kind = _kind_of_archive(archive, path)
            check_records(archive)
            return kind
    except DamagedArchiveError as error:
        raise TruncatedModelError(f"{path}: {error} (cut off or damaged); download or save it again") from error
    except StrangeArchiveError as error:
        raise UntrustedModelError(f"{path}: is refused: {error}; save it again with torch") from error


def _kind_of_archive(archive: zipfile.ZipFile, path: Path) -> FileKind:
    records, plain = record_names(archive), set(archive.namelist())
    for marker, (what, instead) in _OTHER_ARCHIVES.items():
        if marker in records or marker in plain:
            raise UnsupportedModelError(f"{path}: is {what}, which cannot be rewritten; {instead}")
    if any(marker in records or marker in plain for marker in _EXPORTED):
        return FileKind.EXPORTED
    if DATA_RECORD not in records:
        raise NotAModelError(f"{path}: a zip archive with no {DATA_RECORD} in it, {_EXPECTED}; choose another file")
    return FileKind.ZIP


def _describe(head: bytes) -> str:
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic):
            return f"is {what}"
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return "is a pickle that torch.save did not write"
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return "is a text file"
    return "is no model file that is known here"
