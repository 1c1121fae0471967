"""A model file in, a network out: the front door of loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from vfconvert.errors import (
    ArchitectureError,
    ArchitectureNeededError,
    EmptyModelError,
    TruncatedModelError,
    UnsupportedModelError,
    UntrustedModelError,
    first_line,
)
from vfconvert.files import read_to_its_end, sha256_of
from vfconvert.loading.allowlist import is_quantized
from vfconvert.loading.architectures import build_architecture
from vfconvert.loading.contents import Contents, find_network
from vfconvert.loading.exported import read_exported
from vfconvert.loading.onnx_file import files_beside, read_onnx
from vfconvert.loading.onnx_inputs import StatedInput
from vfconvert.loading.pickles import Reading, read_safely, read_trusting, untrusted
from vfconvert.loading.sniffing import FileKind, sniff
from vfconvert.loading.trees import check_plain, check_repeated, check_tree
from vfconvert.loading.weights import load_weights

_NAME = re.compile(r"[^\"'\\()\x00-\x1f\x7f]*")  # no quotes, parentheses, line breaks


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A network from a file.

    `model` is on the CPU and in evaluation mode; `was_training` is the mode it was saved or built in. `format` is
    "module" (saved whole), "state_dict", "exported" (by torch.export) or "onnx"; `architecture` is what built the
    network, None where the file did.
    `trusted`: the file was allowed to run code, and had to be. `key` is where in the file the network was ("" at the
    top, else as "a.b"); `skipped` names classes beside the weights that were not read. `size_bytes` and `sha256`
    are the file's, with those that hold weights for it (of an ONNX file). `inputs` are what the file says of its
    inputs, where it says it, `outputs` the names of its outputs.
    """

    model: nn.Module
    path: Path
    format: str
    architecture: str | None
    trusted: bool
    was_training: bool
    key: str
    skipped: tuple[str, ...]
    size_bytes: int
    sha256: str
    inputs: tuple[StatedInput, ...] = ()
    outputs: tuple[str, ...] = ()


def load_model(
    path: Path,
    *,
    architecture: str | None = None,
    architecture_arguments: Mapping[str, object] | None = None,
    trust_pickle: bool = False,
) -> LoadedModel:
    """Open a file of torch.save or torch.export, a .safetensors or an ONNX file.

    `architecture` says how to build the network of a state dict (see `vfconvert.loading.architectures`), with
    `architecture_arguments` as keyword arguments; of a module saved whole, it then takes the weights. Without
    `trust_pickle` nothing in the file can run code; with it, the file is trusted only where that does not suffice.
    Raises the errors of `vfconvert.errors` from `NotAModelError` to `StateDictMismatchError`, `UnsupportedModelError`
    and `MissingPackageError`, and no others.
    """
    path = Path(path)
    if architecture_arguments and architecture is None:
        raise ArchitectureError(f"--arch-arg {next(iter(architecture_arguments))}: needs --arch; name the network")
    with read_to_its_end(path):
        kind = sniff(path)
        contents, skipped, trusted = _read(path, kind, trust_pickle)
        size = sum(file.stat().st_size for file in (path, *contents.beside))
        digest = sha256_of(path, *contents.beside)
    network = contents.network
    saved_as = "module" if isinstance(network, nn.Module) else "state_dict"
    saved_as = {FileKind.EXPORTED: "exported", FileKind.ONNX: "onnx"}.get(kind, saved_as)
    if isinstance(network, nn.Module):
        if kind is FileKind.ZIP and not trusted:
            check_tree(network, path)
        network = checked(network, path)
    else:
        check_plain(network.values(), path)
    if architecture is not None:
        tensors = network.state_dict() if isinstance(network, nn.Module) else network
        _refuse_meta(tensors, path)
        network = checked(
            build_architecture(architecture, architecture_arguments or {}, unfilled=True), f"--arch {architecture}"
        )
        load_weights(network, tensors, path, architecture)
    elif not isinstance(network, nn.Module):
        raise _architecture_needed(network, path)
    _refuse_meta(network.state_dict(), path)
    check_repeated(network.state_dict(), path)
    was_training = network.training
    return LoadedModel(
        model=network.cpu().eval(),
        path=path,
        format=saved_as,
        architecture=architecture,
        trusted=trusted,
        was_training=was_training,
        key=contents.key,
        skipped=skipped,
        size_bytes=size,
        sha256=digest,
        inputs=contents.inputs,
        outputs=contents.outputs,
    )


def model_files(path: Path) -> tuple[Path, ...]:
    """The file of a model, and those that hold weights for it; nothing in them is read that runs or takes memory.

    Raises what `load_model` raises for files that are none.
    """
    return (path, *files_beside(path)) if sniff(path) is FileKind.ONNX else (path,)


def _read(path: Path, kind: FileKind, trust_pickle: bool) -> tuple[Contents, tuple[str, ...], bool]:
    """The network in the file, the classes skipped, and whether the file was trusted."""
    if kind is FileKind.SAFETENSORS:
        return find_network(_read_safetensors(path), str(path)), (), False
    if kind is FileKind.ONNX:
        imported = read_onnx(path)
        return Contents(imported.module, "", imported.inputs, imported.beside, imported.outputs), (), False
    if kind is FileKind.EXPORTED:
        return Contents(read_exported(path), ""), (), False
    try:
        reading = read_safely(path, kind)
        return _found(reading, path), reading.skipped, False
    except UntrustedModelError:
        if not trust_pickle:
            raise
    return _found(read_trusting(path, kind), path), (), True


def _found(reading: Reading, path: Path) -> Contents:
    try:
        contents = find_network(reading.value, str(path))
    except EmptyModelError as error:
        if reading.skipped:  # the network may be what a stand-in took the place of
            raise untrusted(path, reading.skipped[0]) from error
        raise
    if reading.skipped and isinstance(contents.network, nn.Module):  # a stand-in may be inside
        raise untrusted(path, reading.skipped[0])
    return contents


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise TruncatedModelError(
            f"{path}: not a complete safetensors file ({first_line(error)}); download or save it again"
        ) from error


def checked(network: nn.Module, where: Path | str) -> nn.Module:
    """The network out of its wrapper, known to be of a kind that can be rewritten, with its modules in order.

    Raises `TruncatedModelError`, `UnsupportedModelError`, `UntrustedModelError` and `EmptyModelError`; `where` starts
    the messages.
    """
    try:
        while type(network) is nn.DataParallel:
            network = network.module
        modules = list(network.modules())
        state = network.state_dict()
        network.train(network.training)  # walks the tree: a damaged one, or one inside itself, fails here
    except Exception as error:
        raise TruncatedModelError(
            f"{where}: the module in it is not complete ({first_line(error)}); save it again"
        ) from error
    if any(isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)) for module in modules):
        raise UnsupportedModelError(
            f"{where}: is a ScriptModule, which cannot be rewritten; save the original nn.Module"
        )
    for name in (*(name for name, _ in network.named_modules()), *state):
        if not _NAME.fullmatch(name):
            raise UntrustedModelError(
                f"{where}: has a part of the name {name!r}, which exporters would write into code; rename it"
            )
    names = [f"{type(module).__module__}.{type(module).__name__}" for module in modules]
    quantized = next((name for name in names if is_quantized(name)), None)
    if quantized or any(isinstance(value, Tensor) and value.is_quantized for value in state.values()):
        raise UnsupportedModelError(
            f"{where}: is a network made for quantization ({quantized or 'quantized weights'}), which cannot be "
            "rewritten; save the one in float32 that it was made from"
        )
    if not state:
        raise EmptyModelError(f"{where}: a {type(network).__name__} without any weights; save a network that has some")
    return network


def _refuse_meta(tensors: Mapping[str, object], path: Path) -> None:
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_meta:
            raise EmptyModelError(f"{path}: {name!r} is on the meta device and has no numbers; save the real weights")


def _architecture_needed(tensors: Mapping[str, Tensor], path: Path) -> ArchitectureNeededError:
    first = next(iter(tensors))
    shape = "x".join(str(size) for size in tensors[first].shape) or "a number"
    return ArchitectureNeededError(
        f"{path}: holds only weights ({len(tensors)} tensors, the first {first!r}, {shape}); name the network they "
        "belong to, e.g. --arch torchvision:resnet18 or --arch path/to/file.py:factory"
    )
