"""Converted networks from `.safetensors` files: the recipe in the header says what to build, the tensors fill it.

Nothing in such a file can run code. Only networks of torchvision and timm are built by name, without their pretrained
weights; for any other the caller gives the network that was converted. Every size is compared with the header before
anything of that size is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vfconvert.analysis.forward import run_once
from vfconvert.analysis.graph import trace
from vfconvert.errors import (
    InputShapeError,
    NotAModelError,
    StateDictMismatchError,
    TruncatedModelError,
    UnsupportedModelError,
    first_line,
)
from vfconvert.keyword_values import read_value
from vfconvert.keyword_values import shown as shown_value
from vfconvert.loading.sniffing import FileKind, sniff
from vfconvert.lowering.network import lower
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.several_inputs import Inputs, input_names, joined, separated
from vfconvert.recipes.building import OTHER, rebuilt, tensors_of
from vfconvert.recipes.recipe import KEY, Recipe, read_recipe, shown
from vfconvert.rewriting import with_convolutions, with_ordinary_layers
from vfconvert.shortages import shortages_named

_LARGEST_EXAMPLE = 2**24  # numbers in an image that is made up


@shortages_named()
def load(
    path: str | os.PathLike[str],
    *,
    like: nn.Module | None = None,
    lowered: bool = False,
    plain: bool = False,
    example: Tensor | Sequence[Tensor] | None = None,
) -> nn.Module:
    """A converted network from a `.safetensors` file, on the CPU and in evaluation mode.

    The network is built by the name in the file (of torchvision or timm), else from a copy of `like`, the original
    network. It holds trainable `VersatileConv2d` layers; with `lowered`, their inference form instead, traced with
    `example` `(B, C, H, W)` (noise `(2, C, H, W)` of the shape in the file if None); with `plain`, ordinary `Conv2d`
    and `Linear` layers of the original's size, as GPUs run them fastest. A network of several inputs takes them as the
    original does, and `example` is then a sequence of them.

    Raises `NotAModelError`, `EmptyModelError`, `TruncatedModelError` where the file is not one of these or is damaged;
    `UntrustedModelError`, `ArchitectureNeededError`, `ArchitectureError`, `MissingPackageError` where the network
    cannot be built; `IllegalSpecError` and `StateDictMismatchError` where file and network do not fit;
    `UnsupportedModelError` for a file of another version, or a network that cannot be traced; `InputShapeError` where
    the network rejects `example`; `TypeError` for an argument of another kind, `ValueError` for both `lowered` and
    `plain`, or an `example` without `lowered`.
    """
    path = _checked(path, like, lowered, plain, example)
    if (kind := sniff(path)) is not FileKind.SAFETENSORS:
        raise NotAModelError(f"{path}: is {kind.value}, expected a .safetensors file that vfconvert wrote")
    try:
        opened = safe_open(path, framework="pt")
    except Exception as error:
        raise TruncatedModelError(
            f"{path}: not a complete safetensors file ({first_line(error)}); download or save it again"
        ) from error
    with opened as file:
        header = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        recipe = read_recipe((file.metadata() or {}).get(KEY), path)
        model = rebuilt(recipe, header, like, path)
        _fill_(model, recipe, {name: file.get_tensor(name).clone() for name in header}, path)
    model.eval()
    if plain:
        return with_ordinary_layers(model)
    return _lowered(model, recipe, example, path) if lowered else model


def _checked(path: Any, like: Any, lowered: Any, plain: Any, example: Any) -> Path:
    """The path. Raises `TypeError` where an argument is of another kind, `ValueError` for two forms at once."""
    several = isinstance(example, (list, tuple)) and all(isinstance(one, Tensor) for one in example)
    for name, value, right, expected in (
        ("like", like, isinstance(like, nn.Module), "the network that was converted"),
        ("example", example, several or isinstance(example, Tensor), "a tensor of images (B, C, H, W), one an input"),
    ):
        if value is not None and not right:
            raise TypeError(f"load(): {name}: got {shown_value(value)}, expected {expected} or None")
    forms = [read_value(f"load(): {name}", "bool", value) for name, value in (("lowered", lowered), ("plain", plain))]
    if all(forms):
        raise ValueError("load(): lowered and plain are two forms of one network; drop one of the two")
    if example is not None and not forms[0]:
        raise ValueError("load(): example says nothing without lowered; add that or drop it")
    found: Path = read_value("load(): path", "Path", path)
    return found


def _fill_(model: nn.Module, recipe: Recipe, stored: dict[str, Tensor], path: Path) -> None:
    """Make the tensors of a file those of the network, whatever their precision."""
    live, sources, used = tensors_of(model), dict[int, str](), dict[str, int]()
    integers = {id(tensor) for m in model.modules() if isinstance(m, VersatileConv2d) for tensor in (m.rows, m.order)}
    for name, tensor in live.items():
        source = recipe.shared.get(name, name)
        if (first := sources.setdefault(id(tensor), source)) != source:
            raise StateDictMismatchError(f"{path}: {shown(name)} and {shown(first)} are one tensor; {OTHER}")
        value = stored[source]
        if used.setdefault(source, id(tensor)) != id(tensor):  # one tensor once, and two in this architecture
            value = value.clone()
        if _category(value) != _category(tensor):
            raise StateDictMismatchError(f"{path}: {shown(name)} is {value.dtype}, expected {tensor.dtype}; {OTHER}")
        tensor.data = value.to(torch.int64) if id(tensor) in integers else value
    for layer in recipe.layers:
        _check_numbers(model.get_submodule(layer.name), f"{path}: layer {shown(layer.name)}")


def _category(tensor: Tensor) -> tuple[bool, ...]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def _check_numbers(layer: nn.Module, where: str) -> None:
    if not isinstance(layer, VersatileConv2d):
        raise TypeError(f"{where} is no versatile layer")
    geometry, spec, rows = layer.geometry, layer.spec, layer.rows
    largest = len(spec.crops) * spec.window_choices * spec.primaries(geometry)
    if int(rows.min()) < 0 or int(rows.max()) >= largest:
        raise TruncatedModelError(f"{where}: rows outside 0 to {largest - 1}; download or save it again")
    groups = torch.arange(geometry.out_channels) // geometry.group_outputs
    if not torch.equal(rows % spec.primaries(geometry) // spec.primaries_per_group(geometry), groups):
        raise TruncatedModelError(f"{where}: rows of another group's filters; download or save it again")
    if layer.order is not None and not torch.equal(layer.order.sort().values, torch.arange(geometry.group_inputs)):
        raise TruncatedModelError(f"{where}: order names a channel twice or not at all; download or save it again")


def _lowered(model: nn.Module, recipe: Recipe, example: Tensor | Sequence[Tensor] | None, path: Path) -> nn.Module:
    channels = recipe.input_channels
    given = 1 if example is None or isinstance(example, Tensor) else len(example)
    if example is not None and given != max(1, len(channels)):
        raise InputShapeError(f"{path}: the network takes {max(1, len(channels))} inputs, example= has {given}")
    if example is not None and not isinstance(example, Tensor):
        example = torch.cat(list(example), 1)
    if channels:
        model = joined(model, Inputs(input_names(model, len(channels)), channels))
    if example is None:
        if prod(recipe.input_shape) > _LARGEST_EXAMPLE:
            raise InputShapeError(f"{path}: takes inputs of {shown(recipe.input_shape)}; give one with example=")
        like = next(tensor for tensor in model.parameters() if tensor.is_floating_point())
        noise = torch.randn(2, *recipe.input_shape, generator=torch.Generator().manual_seed(0))
        example = noise.to(like.dtype)
    run_once(model, example)  # its error says more than a failed trace
    if (network := trace(model, example)) is None:
        raise UnsupportedModelError(f"{path}: the network's control flow cannot be traced; load it without lowered=")
    made = lower(model, network, {layer.name: layer.variant for layer in recipe.layers if layer.variant}).model
    return separated(with_convolutions(made))
