"""Converted networks as `.safetensors` files that `vfconvert.load` reads: the tensors, and a recipe in the header."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from vfconvert.errors import ExportError, UnwritableOutputError
from vfconvert.exporting.cause import cause_line
from vfconvert.files import atomic_path
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.flattened import flattened_convs
from vfconvert.nn.several_inputs import inputs_of
from vfconvert.recipes.building import fetches_weights, tensors_of
from vfconvert.recipes.recipe import KEY, SCHEMA, LayerRecipe, recipe_of

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors tells of one
_NONE: Mapping[str, str] = MappingProxyType({})


def write_safetensors(
    model: nn.Module,
    path: Path,
    *,
    architecture: str | None,
    architecture_arguments: Mapping[str, object],
    input_shape: Sequence[int],
    metadata: Mapping[str, str],
    variants: Mapping[str, str] = _NONE,
    readable: Path | None = None,
    plain: bool = False,
) -> None:
    """Write a network with `VersatileConv2d` layers as one file, and its recipe to `readable`, for people.

    `readable` None is the path with the suffix `.json`.

    `architecture` and its arguments build the original network, as `--arch` and `--arch-arg` do; arguments that name
    pretrained weights are left out. `input_shape` is `(C, H, W)`; `variants` says for some layers how
    `vfconvert.lowering` computes them; `plain`: the original had to be made plain (`vfconvert.plain`). A tensor of
    several names is stored once; `rows` `(N,)` and `order` `(C/G,)` as int16 or int32, all others as they are. The
    model is left as it is.

    Raises `ExportError` where the network or an argument cannot be stored so, and `UnwritableOutputError`; then
    neither file is there.
    """
    readable = path.with_suffix(".json") if readable is None else readable
    if readable == path:
        raise UnwritableOutputError(f"cannot write {path}: its recipe has this name; choose another suffix")
    layers = _layers(model, variants)
    stored, shared = _stored(model)
    recipe: dict[str, Any] = {
        "schema": SCHEMA,
        "architecture": architecture,
        "architecture_arguments": {k: v for k, v in architecture_arguments.items() if not fetches_weights(k)},
        "input_shape": list(input_shape),
        "layers": [dataclasses.asdict(layer) for layer in layers],
        "shared": shared,
        "metadata": dict(metadata),
        "plain": plain,
    }
    if linears := flattened_convs(model):
        recipe["linear"] = {name: list(features) for name, features in linears.items()}
    if (inputs := inputs_of(model)) is not None:
        recipe["input_channels"] = list(inputs.channels)
    try:
        header = json.dumps(recipe, separators=(",", ":"))
        recipe_of(json.loads(header))  # as whoever loads it will
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(f"the recipe cannot be stored: {cause_line(error)}; give values that JSON has") from error
    with ExitStack() as outputs:  # last in, first out: the recipe appears after the file that it describes
        beside = outputs.enter_context(atomic_path(readable))
        temporary = outputs.enter_context(atomic_path(path))
        beside.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        try:
            safetensors.torch.save_file(stored, temporary, {"format": "pt", KEY: header})
        except Exception as error:  # a kind of tensor that the format does not have, or a full disk
            if number := _SYSTEM_ERROR.search(str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise ExportError(f"{path} cannot be written: {cause_line(error)}") from error


def _layers(model: nn.Module, variants: Mapping[str, str]) -> tuple[LayerRecipe, ...]:
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, VersatileConv2d)}
    if not found or "" in found:
        raise ExportError(f"{type(model).__name__} contains no versatile layer; convert a network first")
    if unknown := next((name for name in variants if name not in found), None):
        raise ExportError(f"variants: {unknown!r} is no versatile layer; the first is {next(iter(found))!r}")
    return tuple(
        LayerRecipe(
            name=name,
            geometry=layer.geometry,
            spec=layer.spec,
            scale=layer.scale is not None,
            order=layer.order is not None,
            variant=variants.get(name),
        )
        for name, layer in found.items()
    )


def _stored(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, and the name under which each further one is stored."""
    indices = {id(t) for m in model.modules() if isinstance(m, VersatileConv2d) for t in (m.rows, m.order)}
    stored: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in tensors_of(model).items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_meta:
            raise ExportError(f"{name} of the network is no dense tensor, and only those are stored")
        if first.setdefault(id(tensor), name) != name:
            shared[name] = first[id(tensor)]
        else:
            stored[name] = _own(_narrow(tensor) if id(tensor) in indices else tensor)
    return stored, shared


def _narrow(indices: Tensor) -> Tensor:
    return indices.to(torch.int16 if not len(indices) or int(indices.max()) < 2**15 else torch.int32)


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, dense, in memory that no other tensor lies in."""
    dense = tensor.detach().cpu().contiguous()
    return dense if dense.untyped_storage().nbytes() == dense.nbytes else dense.clone()
