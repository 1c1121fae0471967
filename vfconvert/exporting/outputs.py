"""What a network returns, as a flat list of named tensors, and which of them is the main one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vfconvert.errors import ExportError
from vfconvert.tasks.structure import is_refined

MAIN_KEY = "out"  # torchvision's segmentation networks call their main output so


def named_outputs(value: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor of a nest of mappings, lists and tuples, in order, with a name unique in the list.

    A lone tensor is "output", a sequence gives "output_0", "output_1", …, a mapping its own keys; deeper levels are
    joined by underscores. None (an auxiliary head that is silent in eval mode) is left out.
    Raises `ExportError` for anything else, or where there is no tensor at all.
    """
    named: dict[str, Tensor] = {}
    for wanted, tensor in _walk(value, name):
        unique, number = wanted, 2
        while unique in named or unique == "input":  # the graph's input has that name
            unique, number = f"{wanted}_{number}", number + 1
        named[unique] = tensor
    if not named:
        raise ExportError("the network returns no tensor, expected at least one; wrap it so that it returns tensors")
    return list(named.items())


def main_output(value: Any) -> Tensor:
    """The tensor that the network is judged by: of a mapping its "out", else the first there is, at any depth.

    Of a list of maps of one shape it is the last (see `is_refined`). Raises `ExportError` where there is no tensor.
    """
    if isinstance(value, Mapping) and value.get(MAIN_KEY) is not None:
        return main_output(value[MAIN_KEY])
    return value[-1] if is_refined(value) else named_outputs(value)[0][1]


def _walk(value: Any, name: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name or "output", value)]
    if value is None:
        return []
    if isinstance(value, Mapping):
        parts = [(f"{name}_{key}" if name else str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{name or 'output'}_{index}", part) for index, part in enumerate(value)]
    else:
        got = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        where = name or "output"
        raise ExportError(f"{where} of the network: got {got}, expected tensors; wrap it so that it returns them")
    return [found for part_name, part in parts for found in _walk(part, part_name)]
