"""Where in a loaded object the network is: a module, or a state dict, at the top or under one of the usual keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vfconvert.errors import EmptyModelError, UnsupportedModelError
from vfconvert.loading.onnx_inputs import StatedInput

# In this order: where a file has both, the weights themselves come before their moving average.
WEIGHT_KEYS = (
    *("state_dict", "model", "model_state_dict", "model_state", "module", "net", "net_state_dict", "network"),
    *("weights", "params", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema"),
)
_NOT_WEIGHTS = ("optim", "sched", "scaler")
_DEEPEST = 4
_MOST = 1000  # more are refused as several


@dataclass(frozen=True, eq=False)
class Contents:
    """A module saved whole, or the tensors of a state dict by name; `key` says where: "" at the top, else "a.b".

    `inputs` are what the file says of the network's inputs, `outputs` what it calls its outputs, `beside` are the files
    that hold weights for it.
    """

    network: nn.Module | dict[str, Tensor]
    key: str
    inputs: tuple[StatedInput, ...] = ()
    beside: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()


def find_network(value: Any, where: str) -> Contents:
    """The network in what a file holds; `where` starts the messages.

    Raises `EmptyModelError` where there is none and `UnsupportedModelError` where there are several.
    """
    found = _search(value, (), set())
    if len(found) > 1:
        names = ", ".join(repr(one.key) for one in found[:4])
        raise UnsupportedModelError(
            f"{where}: holds {len(found)} networks ({names}), expected one; save the one to convert by itself"
        )
    if found:
        return found[0]
    if isinstance(value, Mapping) and ("param_groups" in value or any("optim" in str(key) for key in value)):
        what = "holds the state of an optimizer and no weights"
    else:
        what = f"holds no weights, but {_describe(value)}"
    raise EmptyModelError(f"{where}: {what}; save the network itself or its state_dict()")


def _search(value: Any, keys: tuple[str, ...], fruitless: set[int]) -> list[Contents]:
    """Mappings in which nothing was found are not searched again, on whatever other way they are reached."""
    key = ".".join(keys)
    if isinstance(value, nn.Module):
        return [Contents(value, key)]
    if not isinstance(value, Mapping) or "param_groups" in value or len(keys) > _DEEPEST or id(value) in fruitless:
        return []
    found = _search_mapping(value, keys, fruitless)
    if not found:
        fruitless.add(id(value))
    return found


def _search_mapping(value: Mapping[Any, Any], keys: tuple[str, ...], fruitless: set[int]) -> list[Contents]:
    for name in WEIGHT_KEYS:
        found = _search(value[name], (*keys, name), fruitless) if name in value else []
        if found:
            return found
    found = []
    for name, part in _others(value):
        found += _search(part, (*keys, name), fruitless)
        if len(found) > _MOST:
            break
    if found:
        return found
    tensors = {name: part for name, part in value.items() if isinstance(part, Tensor) and isinstance(name, str)}
    return [Contents(tensors, ".".join(keys))] if tensors and not _only_statistics(value, tensors) else []


def _others(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Parts under unusual names, but for those of an optimizer and its like."""
    for name, part in value.items():
        unlike = isinstance(name, str) and not any(word in name.lower() for word in _NOT_WEIGHTS)
        if unlike and isinstance(part, (Mapping, nn.Module)):
            yield name, part


def _only_statistics(value: Mapping[Any, Any], tensors: dict[str, Tensor]) -> bool:
    """Whether the tensors are a few single numbers among other things, such as a loss beside an optimizer."""
    return len(tensors) < len(value) and all(tensor.numel() <= 1 for tensor in tensors.values())


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(repr(key) for key in list(value)[:4])
        return f"a mapping with the keys {names}" if names else "an empty mapping"
    return f"an object of type {type(value).__name__}"
