"""Whether the objects of a file make a tree of modules that can be walked: what follows does so without looking."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.errors import TruncatedModelError, UntrustedModelError

_DEEPEST = 200  # of containers and modules in each other: a copy takes some three calls for each
_MOST_PATHS = 100_000  # to modules: each is a prefix of names in the state dict
_MOST_REPEATED = 256 * 2**20  # bytes that tensors show beyond those stored
_LARGEST = 2**31 - 1  # of the whole numbers of a layer: torch multiplies some of them without looking


def check_tree(network: nn.Module, where: object) -> None:
    """Raise `UntrustedModelError` where a module replaces its methods, or is to be walked for ever.

    Raises `TruncatedModelError` where a module's parts are of the wrong type, or it is inside itself. Linear in what
    the file holds.
    """
    for module in _modules_in(network, where):
        if not all(isinstance(getattr(module, part, None), dict) for part in ("_modules", "_parameters", "_buffers")):
            raise TruncatedModelError(f"{where}: a {type(module).__name__} in it is not complete; save it again")
        replaced = next((name for name in vars(module) if _is_method(type(module), name)), None)
        if replaced is not None or vars(module).get("_compiled_call_impl") is not None:
            raise UntrustedModelError(
                f"{where}: a {type(module).__name__} in it has its own {replaced or 'call'!r} in the place of torch's; "
                "save its state_dict() and name the network with --arch"
            )
        if (large := next((number for number in _whole_numbers(module) if abs(number) > _LARGEST), None)) is not None:
            raise UntrustedModelError(
                f"{where}: a {type(module).__name__} in it has the number {large:.3g}, more than any layer takes; save "
                "its state_dict() and name the network with --arch"
            )
        check_plain([*module._parameters.values(), *module._buffers.values()], where)
    if _paths(network, {}, where) > _MOST_PATHS:
        raise UntrustedModelError(f"{where}: leads to its modules on more than {_MOST_PATHS:,} ways; save it again")


def check_plain(tensors: Iterable[Any], where: object) -> None:
    """Raise `UntrustedModelError` for tensors with attributes in the place of torch's own, or of several sizes each.

    Other values are passed over.
    """
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            replaced = next((name for name in vars(tensor) if hasattr(Tensor, name)), None)
            if replaced is not None or tensor.is_nested:
                odd = f"has its own {replaced!r} in the place of torch's" if replaced else "is nested"
                raise UntrustedModelError(f"{where}: a tensor in it {odd}; save plain tensors")


def check_repeated(tensors: Mapping[str, Any], where: object) -> None:
    """Raise `UntrustedModelError` where tensors show far more numbers than are stored: copies would have them all."""
    beyond = 0
    for tensor in {id(value): value for value in tensors.values()}.values():
        if isinstance(tensor, Tensor) and tensor.device.type == "cpu" and _is_plain(tensor):
            beyond += max(tensor.numel() * tensor.element_size() - tensor.untyped_storage().nbytes(), 0)
    if beyond > _MOST_REPEATED:
        raise UntrustedModelError(
            f"{where}: its tensors show {beyond:,} bytes more than it holds; save them contiguous"
        )


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def _is_method(kind: type, name: Any) -> bool:
    return isinstance(name, str) and isinstance(getattr(kind, name, None), FunctionType)


def _modules_in(network: nn.Module, where: object) -> Iterator[nn.Module]:
    """Every module in the network's parts and attributes, once; the walk goes as a copy does."""
    seen, walk = {id(network)}, [_parts(network)]
    yield network
    while walk:
        part = next(walk[-1], walk)
        if part is walk:
            walk.pop()
        elif id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, nn.Module):
                yield part
            walk.append(_parts(part))
            if len(walk) > _DEEPEST:
                raise UntrustedModelError(f"{where}: is nested more than {_DEEPEST} deep; save its state_dict()")


def _whole_numbers(module: nn.Module) -> Iterator[int]:
    """Those that a layer goes by, in pairs and longer rows too."""
    for value in vars(module).values():
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, int):
                yield number


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, (nn.Module, argparse.Namespace)):
        return iter(list(vars(value).values()))
    if isinstance(value, functools.partial):
        return iter([value.func, *value.args, *value.keywords.values()])
    if isinstance(value, Mapping):
        return iter(list(value.values()))
    return iter(list(value)) if isinstance(value, (list, tuple, set)) else iter(())


def _paths(module: nn.Module, known: dict[int, int], where: object) -> int:
    if known.get(id(module)) == 0:
        raise TruncatedModelError(f"{where}: the module in it is not complete (it is inside itself); save it again")
    if id(module) not in known:
        known[id(module)] = 0
        parts = [part for part in module._modules.values() if isinstance(part, nn.Module)]
        known[id(module)] = 1 + sum(_paths(part, known, where) for part in parts)
    return known[id(module)]
