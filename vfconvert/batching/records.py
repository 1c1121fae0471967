"""What a batch remembers of every item in a file of its own: so a second run does only what is not done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vfconvert.batching.items import FOLDER, Item
from vfconvert.errors import GateError, VfconvertError
from vfconvert.files import atomic_path, sha256_of
from vfconvert.version import __version__

_VERSION = 1
_IMAGES = ("--data", "--target-data")  # an archive of images may take longer to read than the conversion takes
_ONNX = b"\x08"  # the field that such files begin with


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """How an item ended. `key` is what it was made from; `error` is one line; seconds and bytes are of its process.

    `report` is that of the conversion, None where there is none. `peak_bytes` is None where the system does not tell.
    """

    key: str
    exit_code: int
    seconds: float
    error: str = ""
    peak_bytes: int | None = None
    report: Mapping[str, Any] | None = None
    version: int = _VERSION

    @property
    def state(self) -> str:
        """In one word for a summary."""
        if self.exit_code == 0:
            return "converted" if self.report is not None and self.report.get("artefacts") else "failed"
        return "gate failed" if self.exit_code == GateError.exit_code else "failed"


def key_of(item: Item) -> str:
    """What an item's outputs depend on, as a digest: the model, the recipe, the arguments, this version.

    Arguments that name files count with what these hold, images by their names alone. A file that cannot be read counts
    as none, and the conversion says why it cannot.
    """
    words = [word for one in item.arguments for word in (one.split("=", 1) if one[:2] == "--" else (one,))]
    named = [Path(one) for flag, one in pairwise(("", *words)) if flag not in _IMAGES and one[:1] != "-"]
    files = [_digest(path) for path in named if path.is_file()]
    parts = [__version__, _digest(item.model), _digest(item.config), json.dumps(item.arguments), *files]
    return hashlib.sha256("\n".join(parts).encode("utf-8", errors="backslashreplace")).hexdigest()


def _digest(path: Path | None) -> str:
    try:
        return sha256_of(*_files(path)) if path is not None else ""
    except (OSError, ValueError):
        return ""


def _files(path: Path) -> tuple[Path, ...]:
    with path.open("rb") as file:
        if file.read(1) != _ONNX:  # other models are one file, and need no torch to be told
            return (path,)
    from vfconvert.loading import model_files

    try:
        return model_files(path)
    except VfconvertError:
        return (path,)


def record_path(folder: Path, item: Item) -> Path:
    """Where the record of an item is kept."""
    return folder / FOLDER / f"{item.name}.json"


def read_record(folder: Path, item: Item) -> Record | None:
    """The record of an item; None where there is none, or it is damaged or of another version."""
    try:
        value = json.loads(record_path(folder, item).read_bytes())
        record = Record(**value)
        sound = record.version == _VERSION and isinstance(record.exit_code, int) and isinstance(record.key, str)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if sound and isinstance(record.report, (dict, type(None))) else None


def write_record(folder: Path, item: Item, record: Record) -> None:
    """Replace the record of an item. Raises `UnwritableOutputError`."""
    text = json.dumps(dataclasses.asdict(record), indent=1)
    with atomic_path(record_path(folder, item)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_done(record: Record | None, key: str) -> bool:
    """Whether an item was converted from this very input and its files are still there, as long as they were."""
    if record is None or record.exit_code != 0 or record.key != key or record.report is None:
        return False
    try:
        files = files_of(record.report)
        return bool(files) and all(Path(path).stat().st_size == size for path, size in files)
    except (OSError, KeyError, TypeError):
        return False


def files_of(report: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Path and bytes of every file that a report says was written, those of further precisions too.

    Raises `KeyError` and `TypeError` where it is no report.
    """
    further = [one for one in report.get("precisions") or () if one["path"] is not None]
    found = {one["path"]: one["bytes"] for one in (*(report.get("artefacts") or ()), *further)}
    return tuple(found.items())
