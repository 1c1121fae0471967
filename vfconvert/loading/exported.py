"""Archives of torch.export: a graph as JSON, weights as raw bytes; nothing but tensors is unpickled."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from vfconvert.errors import TruncatedModelError, UnsupportedModelError, UntrustedModelError, first_line
from vfconvert.loading.archives import place_of
from vfconvert.loading.call_layers import free_the_batch, with_layers
from vfconvert.loading.claims import check_claims
from vfconvert.loading.exported_graph import DTYPES, ForbiddenOperatorError, UnknownGraphError, graph_module_of
from vfconvert.loading.globals import asked_by
from vfconvert.loading.sniffing import FileKind

_LARGEST_JSON = 64 * 2**20  # bytes; a graph of more calls than are read
_OLD_PROGRAM = "serialized_exported_program.json"  # the layout of torch 2.6 and 2.7
_OLD_TENSORS = ("serialized_state_dict.pt", "serialized_constants.pt")
_SAVE_INSTEAD = "torch.save the nn.Module it was made from"


def read_exported(path: Path) -> nn.Module:
    """The program in an archive of torch.export, its convolutions as modules, in evaluation.

    Raises `UntrustedModelError` (operators or pickles that are not allowed), `UnsupportedModelError` (a graph of other
    parts than tensors) and `TruncatedModelError`.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            program, tensors = _Archive(archive, file, path).read()
        module = graph_module_of(program, tensors)
        free_the_batch(module)
        return with_layers(module).eval()
    except ForbiddenOperatorError as error:
        raise UntrustedModelError(f"{path}: is refused: {error}; {_SAVE_INSTEAD}") from error
    except UnknownGraphError as error:
        raise UnsupportedModelError(f"{path}: a torch.export program that is not read here: {error}") from error
    except (UntrustedModelError, UnsupportedModelError, TruncatedModelError):
        raise
    except Exception as error:  # any type, from damaged bytes
        raise TruncatedModelError(
            f"{path}: cut off or damaged ({type(error).__name__}: {first_line(error)}); export it again"
        ) from error


def _mapped(path: Path) -> torch.UntypedStorage:
    found: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    return found  # type: ignore[no-any-return]


class _Archive:
    """The records of an archive, by their name below the top folder where there is one."""

    def __init__(self, archive: zipfile.ZipFile, file: IO[bytes], path: Path) -> None:
        self._archive, self._file, self._path = archive, file, path
        self._mapped: torch.UntypedStorage | None = None
        names = archive.namelist()
        below = {name.partition("/")[2]: name for name in names}
        self._names = {name: name for name in names} if _OLD_PROGRAM in names else below

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The program's JSON, and weights and constants by name."""
        if _OLD_PROGRAM in self._names:
            tensors = dict[str, Tensor]()
            for record in _OLD_TENSORS:
                tensors |= self._pickled(record)
            return self._json(_OLD_PROGRAM), tensors
        models = [name for name in self._names if name.startswith("models/") and name.endswith(".json")]
        if len(models) != 1:
            raise UnsupportedModelError(
                f"{self._path}: a torch.export archive of {len(models)} programs, expected one; save one by itself"
            )
        model = models[0].removeprefix("models/").removesuffix(".json")
        tensors = self._tensors("data/weights/", model, "weights") | self._tensors(
            "data/constants/", model, "constants"
        )
        return self._json(models[0]), tensors

    def _json(self, record: str) -> dict[str, Any]:
        found = json.loads(self._bytes(record, _LARGEST_JSON))
        if not isinstance(found, dict):
            raise TypeError(f"{record} is no mapping")
        return found

    def _tensors(self, folder: str, model: str, kind: str) -> dict[str, Tensor]:
        pickled = f"{folder}{model}.pt"
        if pickled in self._names:
            return self._pickled(pickled)
        config = self._json(f"{folder}{model}_{kind}_config.json")["config"]
        storages = dict[str, Tensor]()
        return {name: self._tensor(folder, entry, storages) for name, entry in config.items()}

    def _tensor(self, folder: str, entry: Mapping[str, Any], storages: dict[str, Tensor]) -> Tensor:
        record, described = str(entry["path_name"]), entry["tensor_meta"]
        if entry["use_pickle"] or described is None:
            found = self._load(folder + record)
            if not isinstance(found, Tensor):
                raise UntrustedModelError(f"{self._path}: {record} is a pickle that is no tensor; {_SAVE_INSTEAD}")
            return found
        dtype = DTYPES[described["dtype"]]
        if record not in storages:
            storages[record] = self._numbers(folder + record, dtype)
        sizes, strides = ([int(size["as_int"]) for size in described[key]] for key in ("sizes", "strides"))
        return storages[record].as_strided(sizes, strides, int(described["storage_offset"]["as_int"]))

    def _numbers(self, record: str, dtype: torch.dtype) -> Tensor:
        """A record as numbers, mapped to the file where it begins where numbers may; changes stay in memory."""
        known = self._archive.getinfo(self._names[record])
        begin = place_of(self._file, known)
        if begin % 16:
            raw = bytearray(self._archive.read(known))
            return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        if self._mapped is None:
            self._mapped = _mapped(self._path)
        part = self._mapped[begin : begin + known.file_size]
        return torch.empty(0, dtype=dtype).set_(part, 0, (known.file_size // dtype.itemsize,))  # type: ignore[call-overload, no-any-return]

    def _pickled(self, record: str) -> dict[str, Tensor]:
        found = self._load(record)
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise UntrustedModelError(f"{self._path}: {record} is a pickle of more than tensors; {_SAVE_INSTEAD}")
        return found

    def _load(self, record: str) -> Any:
        raw = self._bytes(record, None)
        if not raw:
            return {}
        try:
            check_claims(asked_by(io.BytesIO(raw), FileKind.ZIP, record), record, modules=False)
            return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        except Exception as error:
            raise UntrustedModelError(
                f"{self._path}: {record} cannot be read safely ({first_line(error)}); {_SAVE_INSTEAD}"
            ) from error

    def _bytes(self, record: str, most: int | None) -> bytes:
        """A record's bytes, which are no more than the file's; `most` at most."""
        known = self._archive.getinfo(self._names[record])
        if most is not None and known.file_size > most:
            raise UnsupportedModelError(
                f"{self._path}: {record} of {known.file_size:,} bytes, expected {most:,} at most; {_SAVE_INSTEAD}"
            )
        return self._archive.read(known)
