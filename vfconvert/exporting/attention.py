"""Attention with four dimensions, since torch's ONNX exporter knows no other.

Networks attend within windows, `(B, heads, windows, N, E)`, or without heads, `(B, N, E)`. While such a network is
traced, leading dimensions are merged around the call; what is computed stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CALLS = (
    F.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention.default,  # in networks loaded from `torch.export` archives
)


class FourDimensionalAttention(TorchFunctionMode):  # type: ignore[misc, unused-ignore]
    """Within it, `scaled_dot_product_attention` reaches a tracer with four dimensions."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Every call as it is, but for attention."""
        if func in _CALLS:
            return _attended(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attended(
    attend: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`(…, L, E)`, `(…, S, E)`, `(…, S, V)` and a mask `(…, L, S)` -> `(…, L, V)`; torch names its arguments so."""
    given = (query, key, value)
    if attn_mask is not None:
        attn_mask = _whole(attn_mask, query.shape[-2], key.shape[-2])
    if all(tensor.dim() == 4 for tensor in given):
        return attend(*given, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:  # the heads, last of the leading dimensions, share keys and values
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    shapes = [tensor.shape[:-2] for tensor in (query, key, value)]
    leading = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    last = leading[-1] if len(leading) > 1 else 1

    def merged(tensor: Tensor) -> Tensor:
        return tensor.expand(*leading, -1, -1).reshape(-1, last, *tensor.shape[-2:])

    mask = attn_mask
    while mask is not None and mask.dim() > len(leading) + 2 and mask.shape[0] == 1:
        mask = mask.squeeze(0)
    mask = merged(mask) if mask is not None and mask.dim() > 2 else mask
    output = attend(merged(query), merged(key), merged(value), mask, dropout_p, is_causal, scale=scale)
    return output.reshape(*leading, *output.shape[-2:])


def _whole(mask: Tensor, queries: int, keys: int) -> Tensor:
    """A mask of one row or column for all, in full, since ONNX Runtime's own attention (opset 23) takes no other."""
    if mask.dim() < 2:
        mask = mask.unsqueeze(0)
    ends = [
        size if isinstance(own, int) and own == 1 else -1
        for own, size in zip(mask.shape[-2:], (queries, keys), strict=True)
    ]
    return mask.expand(*mask.shape[:-2], *ends) if ends != [-1, -1] else mask
