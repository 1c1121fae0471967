"""Counting what runs, operator by operator, and what is stored, number by number.

Convention: one MAC is one multiply-add, FLOPs = 2 x MACs. Counted are the products of convolutions, linear layers,
matrix products and attention, by the formulas that torch keeps in `torch.utils.flop_counter`. Adding a bias,
normalisation, activations, pooling, resizing and all other elementwise work are zero MACs by convention: they are on
the list below or carry torch's own tag for elementwise operators. An operator that is neither is not zero but
unknown, and is reported in `uncounted`. A batch counts as many times as it has images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from vfconvert.analysis.forward import Example, run_once
from vfconvert.analysis.profile import module_names, tensor_identity
from vfconvert.nn import VersatileConv2d

_WEIGHTED = (_ConvNd, nn.Linear, VersatileConv2d)

_FREE_TAGS = frozenset(getattr(torch.Tag, name) for name in ("pointwise", "reduction") if hasattr(torch.Tag, name))

# Operators without products of their own, without the underscore of the in-place form.
_FREE_NAMES = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_tensor_metadata _batch_norm_no_update
    _local_scalar_dense _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training
    _reshape_alias _reshape_copy _safe_softmax _softmax _to_copy _unsafe_index _unsafe_view _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_nearest_exact2d _weight_norm_interface adaptive_max_pool2d all amax amin
    any arange argmax argmin as_strided avg_pool2d avg_pool3d batch_norm bernoulli cat channel_shuffle clone
    col2im constant_pad_nd contiguous copy cudnn_batch_norm cumprod cumsum embedding empty empty_like
    empty_strided eye fill flip full full_like gather glu hardswish im2col index index_put index_select
    lift_fresh linalg_vector_norm linspace logsumexp max max_pool2d_with_indices max_pool3d_with_indices
    max_unpool2d mean min miopen_batch_norm native_batch_norm native_channel_shuffle native_dropout
    native_group_norm native_layer_norm new_empty new_empty_strided new_full new_ones new_zeros norm normal ones
    ones_like pixel_shuffle pixel_unshuffle prelu prod rand rand_like randn randn_like reflection_pad1d
    reflection_pad2d repeat replication_pad1d replication_pad2d resize roll rsub scalar_tensor scatter sort
    stack std std_mean sum take topk tril triu uniform upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d var var_mean zero zeros zeros_like
"""
_FREE = frozenset(_FREE_NAMES.split())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


# The form that attention takes on a CPU, which torch's own table leaves out.
_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops, **flop_registry}


@dataclass(frozen=True, kw_only=True, slots=True)
class MacCount:
    """MACs of one forward pass of the whole batch.

    `by_operator` has torch's operator names ("aten.convolution"); `by_module` the first name of every module that
    ran, "" the network, a module's count including those within it. `uncounted` says how often operators ran
    whose products are unknown: where it is not empty, the other numbers are lower bounds.
    """

    by_operator: Mapping[str, int]
    by_module: Mapping[str, int]
    uncounted: Mapping[str, int]

    @property
    def total(self) -> int:
        """MACs of the pass."""
        return sum(self.by_operator.values())

    @property
    def flops(self) -> int:
        """`2 x MACs`."""
        return 2 * self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberCount:
    """What a network stores, every tensor once however many modules hold it.

    `parameters` and `weight_bytes`: all parameters, in numbers and in bytes of their own dtypes. `layer_weights`: of
    these, the weights of convolutions and linear layers without biases (what the paper counts).
    `norm_statistics` and `statistics_bytes`: running means and variances. `buffer_bytes`: all buffers that a state
    dict holds, the statistics among them.
    """

    parameters: int
    weight_bytes: int
    layer_weights: int
    norm_statistics: int
    statistics_bytes: int
    buffer_bytes: int


def count_macs(model: nn.Module, example: Example) -> MacCount:
    """MACs of one forward pass on `example`, which leaves the network as it was.

    Every call counts, so a module that runs twice counts twice. Raises `InputShapeError` where the network does not
    take the example.
    """
    running: list[str] = []
    counter = _Counter(running)

    def enter(name: str) -> Any:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    hooks = []
    try:
        for module, names in module_names(model).items():
            hooks.append(module.register_forward_pre_hook(enter(names[0]), prepend=True))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        with counter:
            run_once(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return MacCount(
        by_operator=dict(counter.by_operator), by_module=dict(counter.by_module), uncounted=dict(counter.uncounted)
    )


def count_numbers(model: nn.Module) -> NumberCount:
    """What the network stores; shared modules and tied parameters once."""
    parameters = {tensor_identity(parameter): parameter for parameter in model.parameters()}
    weights, statistics, buffers = (dict[Hashable, Tensor]() for _ in range(3))
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, _WEIGHTED) and isinstance(weight, nn.Parameter):  # not one computed by a parametrization
            weights[tensor_identity(weight)] = weight
        for name, buffer in module.named_buffers(recurse=False):
            if name in ("running_mean", "running_var"):
                statistics[tensor_identity(buffer)] = buffer
            if name not in module._non_persistent_buffers_set:
                buffers[tensor_identity(buffer)] = buffer
    return NumberCount(
        parameters=_numbers(parameters),
        weight_bytes=_bytes(parameters),
        layer_weights=_numbers(weights),
        norm_statistics=_numbers(statistics),
        statistics_bytes=_bytes(statistics),
        buffer_bytes=_bytes(buffers),
    )


def _numbers(tensors: Mapping[Hashable, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _bytes(tensors: Mapping[Hashable, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator after composite ones are taken apart; `running` names the modules it runs within."""

    def __init__(self, running: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running = running
        self.by_operator: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter({"": 0})
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # control flow, compiled kernels
            self.uncounted[str(func)] += 1
            return func(*args, **kwargs)
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if formula is not None:
            self._add(str(func.overloadpacket), formula(*args, **kwargs, out_val=output) // 2)
        elif not _is_free(func):
            self.uncounted[str(func.overloadpacket)] += 1
        return output

    def _add(self, operator: str, macs: int) -> None:
        self.by_operator[operator] += macs
        for name in {"", *self.running}:
            self.by_module[name] += macs


def _is_free(func: torch._ops.OpOverload[Any, Any]) -> bool:
    name = func.overloadpacket.__name__.removesuffix("_")
    return func.namespace in ("aten", "prim") and (
        func.is_view or not _FREE_TAGS.isdisjoint(func.tags) or name in _FREE
    )
