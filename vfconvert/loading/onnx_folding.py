"""A bound on what the constants of an ONNX file are computed to: a few bytes can ask for terabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from vfconvert.loading.exported_graph import UnknownGraphError

_MOST_NUMBERS, _TIMES = 2**24, 4  # of computed constants, beyond so many times the file's own


class Folding(TorchFunctionMode):
    """Within, functions of tensors run on their shapes first. Raises `UnknownGraphError` where too much comes out.

    `given` is the count of numbers in the file. Calls with a proxy only note themselves and pass.
    """

    def __init__(self, given: int) -> None:
        super().__init__()
        self._left = _MOST_NUMBERS + _TIMES * given

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The function's value, where its size is within the bound."""
        named = dict(kwargs or {})
        leaves = tree_flatten((args, named))[0]
        if not any(isinstance(leaf, fx.Proxy) for leaf in leaves):
            self._left -= _size_of_result(func, args, named)
            if self._left < 0:
                raise UnknownGraphError("its constants come to far more numbers than the file has")
        return func(*args, **named)


def _size_of_result(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    try:
        shaped = tree_map_only(Tensor, _shape_only, (tuple(args), dict(kwargs)))
        with torch.device("meta"):
            made = func(*shaped[0], **shaped[1])
    except Exception:  # what needs the numbers themselves makes no more of them; what fails will fail again
        return 0
    return sum(leaf.numel() for leaf in tree_flatten(made)[0] if isinstance(leaf, Tensor))


def _shape_only(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
