"""Reading files of torch.save: under `weights_only=True` with an allow-list, or trusting the file where told to."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vfconvert.errors import TruncatedModelError, UnsupportedModelError, UntrustedModelError, VfconvertError, first_line
from vfconvert.loading.allowlist import allowed, is_quantized, may_be_skipped, sealed, stand_in
from vfconvert.loading.claims import check_claims
from vfconvert.loading.globals import Asked, asked_by, not_safe_by_default
from vfconvert.loading.sniffing import FileKind

_FLAG = "if you trust whoever made the file, open it with --trust-pickle"


@dataclass(frozen=True)
class Reading:
    """What a file holds; `skipped` names the classes in whose place an inert stand-in was put."""

    value: Any
    skipped: tuple[str, ...] = ()


def untrusted(path: Path, name: str) -> UntrustedModelError:
    """The refusal of a file that names a class or function which is not allowed."""
    return UntrustedModelError(
        f"{path}: wants to build {name!r}, which is none of torch, torchvision or timm; save its state_dict() and "
        f"name the network with --arch, or, {_FLAG}"
    )


def read_safely(path: Path, kind: FileKind) -> Reading:
    """Read a file of torch.save; nothing in it can run code, and tensors come to the CPU.

    A file that holds modules may name nothing that is not allowed. Of any other only tensors are of use, and classes
    beside them are replaced by stand-ins.
    Raises `UntrustedModelError`, `UnsupportedModelError` (quantized) and `TruncatedModelError`.
    """
    asked = _asked(path, kind)
    names = asked.names
    _refuse_quantized(path, names)
    known = {name: allowed(name) for name in not_safe_by_default(names)}
    permitted = {name: found for name, found in known.items() if found is not None}
    unknown = [name for name in known if name not in permitted]
    modules = [name for name, found in permitted.items() if isinstance(found, type) and issubclass(found, nn.Module)]
    refused = unknown if modules else [name for name in unknown if not may_be_skipped(name)]
    if refused:
        raise untrusted(path, refused[0])
    if modules and kind is FileKind.LEGACY:  # there a module's class is a reference that weights_only does not follow
        raise UntrustedModelError(
            f"{path}: holds a module ({modules[0]!r}) saved whole in {kind.value}, which cannot be read safely; save "
            f"it again with a newer torch, or, {_FLAG}"
        )
    _check_claims(asked, path, modules=bool(permitted))
    try:
        return Reading(_load(path, asked, permitted, unknown, mapping=True), tuple(unknown))
    except VfconvertError:
        if not unknown:
            raise
    return Reading(_load(path, asked, permitted, unknown, mapping=False), tuple(unknown))


def read_trusting(path: Path, kind: FileKind) -> Reading:
    """Read a file of torch.save and let it build, and run, whatever it names.

    Raises `UnsupportedModelError` where a class cannot be imported here or is quantized, and `TruncatedModelError`.
    """
    asked = _asked(path, kind)
    _refuse_quantized(path, asked.names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the source of a class has changed since, and the like
            return Reading(torch.load(str(path), map_location="cpu", weights_only=False, mmap=asked.mappable))
    except (ImportError, AttributeError) as error:
        raise UnsupportedModelError(
            f"{path}: a class in it cannot be found here ({first_line(error)}); put the folder of its source on "
            "PYTHONPATH, or save the network's state_dict() and name the network with --arch"
        ) from error
    except Exception as error:
        raise TruncatedModelError(
            f"{path}: cut off, damaged or not readable with this torch ({first_line(error)}); download or save it again"
        ) from error


def _asked(path: Path, kind: FileKind) -> Asked:
    with path.open("rb") as file:
        return asked_by(file, kind, str(path))


def _check_claims(asked: Asked, path: Path, *, modules: bool) -> None:
    try:
        check_claims(asked, str(path), modules=modules)
    except UntrustedModelError as error:
        raise UntrustedModelError(f"{error}, or, {_FLAG}") from error


def _refuse_quantized(path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if is_quantized(name):
            raise UnsupportedModelError(
                f"{path}: holds a network made for quantization ({name!r}), which cannot be rewritten; save the one in "
                "float32 that it was made from"
            )


def _load(
    path: Path, asked: Asked, permitted: dict[str, Callable[..., Any]], unknown: list[str], *, mapping: bool
) -> Any:
    found: list[tuple[Callable[..., Any], str]] = []
    for name, value in permitted.items():
        found += sealed(value, name)
    # What NumPy pickles restores its state from tuples, which only the plain stand-in accepts.
    found += [(stand_in(name, mapping=mapping and not name.startswith("numpy.")), name) for name in unknown]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(found)):
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=asked.mappable)
    except pickle.UnpicklingError as error:
        raise UntrustedModelError(
            f"{path}: asks for what the safe reader does not do ({_cause(error)}); save the network's state_dict() "
            f"with torch.save's defaults, or, {_FLAG}"
        ) from error
    except Exception as error:  # any type, from damaged bytes
        raise TruncatedModelError(
            f"{path}: cut off or damaged ({first_line(error)}); download or save it again"
        ) from error


def _cause(error: pickle.UnpicklingError) -> str:
    """The sentence that tells what went wrong, out of torch's page of advice."""
    found = re.search(r"WeightsUnpickler error:\s+(.+)", str(error))
    return first_line(Exception(found.group(1))) if found else first_line(error)
