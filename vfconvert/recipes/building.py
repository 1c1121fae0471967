"""The original network of a recipe, with versatile layers in the places where they were."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from vfconvert.errors import (
    ArchitectureError,
    ArchitectureNeededError,
    IllegalSpecError,
    StateDictMismatchError,
    UntrustedModelError,
)
from vfconvert.loading.architectures import build_architecture
from vfconvert.nn import VersatileConv2d
from vfconvert.nn.flattened import with_flattened_convs
from vfconvert.plain import made_plain
from vfconvert.recipes.recipe import LayerRecipe, Recipe, damaged, shown
from vfconvert.rewriting import replace_module
from vfconvert.specs import ConvGeometry

KNOWN_SOURCES = ("torchvision", "timm")
OTHER = "the file belongs to another network, or is damaged"
_SMALL = 2**14  # numbers in a tensor that a sketch may hold
_LARGEST_GAIN = 100  # times as many numbers in the original network as in the file
_MODULES_PER_TENSOR = 20  # far more than any network has

Shapes = Mapping[str, tuple[int, ...]]


def rebuilt(recipe: Recipe, header: Shapes, like: nn.Module | None, path: Path) -> nn.Module:
    """The original network with its layers replaced; nothing large is made before all sizes are known to fit."""
    if like is not None:
        if any(tensor.is_meta for tensor in tensors_of(like).values()):
            raise ArchitectureError("like= is on the meta device and cannot be filled; give a network with numbers")
        original = _convolved(_plain(like, recipe), recipe, path)
        _match(original, recipe, header, path)
        model = copy.deepcopy(original).cpu()
    else:
        name = _known_architecture(recipe, path)
        with _few_modules(_MODULES_PER_TENSOR * (len(header) + 1)):
            with _Sketch():
                sketch = build_architecture(name, recipe.architecture_arguments)
            if recipe.plain:  # it takes numbers to tell
                _check_gain(sum(prod(tensor.shape) for tensor in tensors_of(sketch).values()), header, path)
            else:
                _match(_convolved(sketch, recipe, path), recipe, header, path)
            built = _plain(build_architecture(name, recipe.architecture_arguments), recipe)
            model = _convolved(built, recipe, path)
            _match(model, recipe, header, path)
    with torch.random.fork_rng(devices=[]):
        for layer in recipe.layers:
            new = VersatileConv2d(layer.geometry, layer.spec, scale=layer.scale)
            if layer.order:
                new.order = torch.arange(layer.geometry.group_inputs)
            replace_module(model, layer.name, new)
    return model


def _convolved(original: nn.Module, recipe: Recipe, path: Path) -> nn.Module:
    """The network with those Linear layers as convolutions that are so in the file; a copy where there are any."""
    modules = dict(original.named_modules(remove_duplicate=False))
    for name, features in recipe.linear.items():
        linear = modules.get(name)
        if type(linear) is not nn.Linear or not name or linear.in_features != prod(features):
            what = "is not there" if linear is None else f"is {linear}"
            raise StateDictMismatchError(
                f"{path}: {shown(name)} {what} in the architecture, expected a Linear of {prod(features)} inputs; "
                f"{OTHER}"
            )
    return with_flattened_convs(original, recipe.linear) if recipe.linear else original


def _known_architecture(recipe: Recipe, path: Path) -> str:
    name = recipe.architecture
    if name is None or name.partition(":")[0] not in KNOWN_SOURCES:
        raise ArchitectureNeededError(
            f"{path}: its architecture is {shown(name) if name else 'not named'}, and only those of "
            f"{' and '.join(KNOWN_SOURCES)} are built by name; give the original network with like="
        )
    for key, value in recipe.architecture_arguments.items():
        if fetches_weights(key) and value not in (None, False):
            raise UntrustedModelError(
                f"{path}: the architecture's argument {shown(key)} would fetch other weights; give the original "
                "network with like="
            )
    return name


def fetches_weights(argument: str) -> bool:
    """Whether an argument of torchvision's or timm's factories says where to get the network or its weights."""
    return argument.startswith(("weights", "pretrained")) or argument in ("model_name", "checkpoint_path", "cache_dir")


class _Sketch(TorchFunctionMode):
    """Within: large tensors of new modules have a shape and no memory. Small ones may be computed with."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn):
            sizes = kwargs.get("size", args[:1] if func is torch.full else args)
            flat = [n for size in sizes for n in (size if isinstance(size, (tuple, list)) else (size,))]
            if prod(flat) > _SMALL:
                kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextlib.contextmanager
def _few_modules(most: int) -> Iterator[None]:
    """Within, this thread registers at most so many modules: a depth in a file cannot fill the memory."""
    thread, count = threading.get_ident(), 0

    def counted(_: nn.Module, name: str, __: nn.Module | None) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise ArchitectureError(f"more than {most} modules")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def _match(original: nn.Module, recipe: Recipe, header: Shapes, path: Path) -> None:
    """Raise unless the tensors of a file are those of this network with its layers replaced."""
    modules = dict(original.named_modules(remove_duplicate=False))
    wanted = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors_of(original).items()}
    numbers = sum(prod(shape) for shape in wanted.values())
    for layer in recipe.layers:
        where = f"{path}: layer {shown(layer.name)}"
        old = modules.get(layer.name)
        if type(old) is not nn.Conv2d:
            what = "is not there" if old is None else f"is a {type(old).__name__}"
            raise StateDictMismatchError(f"{where} {what} in the architecture, expected a Conv2d; {OTHER}")
        if dataclasses.replace(layer.geometry, bias=old.bias is not None) != ConvGeometry.of(old):
            raise StateDictMismatchError(f"{where} differs from the Conv2d of the architecture ({old}); {OTHER}")
        _check_spec(layer, where)
        parent, _, leaf = layer.name.rpartition(".")
        for prefix in [name for name, module in modules.items() if module is modules[parent]]:
            full = f"{prefix}.{leaf}" if prefix else leaf
            wanted.pop(f"{full}.weight", None)
            wanted.pop(f"{full}.bias", None)
            wanted.update({f"{full}.{name}": shape for name, shape in layer.shapes().items()})
    for name, source in recipe.shared.items():
        if name in header or source not in header:
            raise damaged(path, f"{shown(name)} cannot be shared with {shown(source)}")
    found = {**header, **{name: header[source] for name, source in recipe.shared.items()}}
    for problem, names in (
        ("no", [name for name in wanted if name not in found]),
        ("an unexpected", [name for name in found if name not in wanted]),
    ):
        if names:
            raise StateDictMismatchError(f"{path}: has {problem} tensor {shown(names[0])} ({len(names)} such); {OTHER}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise StateDictMismatchError(f"{path}: {shown(name)} is {found[name]}, expected {shape}; {OTHER}")
    _check_gain(numbers, header, path)


def _plain(original: nn.Module, recipe: Recipe) -> nn.Module:
    """As a conversion makes it: of a copy in float32, in evaluation."""
    return made_plain(copy.deepcopy(original).float().eval())[0] if recipe.plain else original


def _check_gain(numbers: int, header: Shapes, path: Path) -> None:
    """Raise where a network of so many numbers cannot be that of the file."""
    if numbers > _LARGEST_GAIN * (sum(map(prod, header.values())) + _SMALL):
        raise StateDictMismatchError(f"{path}: too few numbers for a network of {numbers}; {OTHER}")


def _check_spec(layer: LayerRecipe, where: str) -> None:
    try:
        layer.spec.check(layer.geometry)
        largest = prod(size * (size + 1) // 2 for size in layer.geometry.kernel_size)  # rectangles of a kernel
        if max(len(layer.spec.crops), len(layer.spec.levels)) > largest:
            raise IllegalSpecError(f"more crops or levels than a kernel of {layer.geometry.kernel_size} has")
    except IllegalSpecError as error:
        raise IllegalSpecError(f"{where}: {error}") from error


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The network's own parameters and buffers by their names in its state dict, every shared one each time."""
    return dict(model.state_dict(keep_vars=True))
