"""Calls of an exported graph into the modules that they came from, so that the rewriter finds its layers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

_aten = torch.ops.aten
_MOST_IN_A_LAYER = 8  # parameters and buffers


def with_layers(module: fx.GraphModule) -> fx.GraphModule:
    """The module with convolutions, BatchNorms and linear maps as submodules, plain functions for the rest; in place.

    A layer is named after its weight ("layer1.0.conv1" of "layer1.0.conv1.weight"). A call becomes a layer where its
    weights are parameters or buffers that nothing else reads; else it stays a call. Dropout, off in evaluation, goes.
    """
    graph = module.graph
    for node in list(graph.nodes):
        made = _LAYERS[node.target](module, node) if node.target in _LAYERS else None
        if made is not None:
            _into_module(module, node, made)
        elif node.target in _DROPPED and not given(node).get("train"):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif (function := _function(node)) is not None:
            _into_function(graph, node, function)
    _drop_unread(module)
    module.recompile()
    return module


def free_the_batch(module: fx.GraphModule) -> None:
    """Shapes that a graph exported for a fixed number of images has written out become those of any number; in place.

    That is where a view of a tensor of so many rows has as many, and leaves no other size open.
    """
    shape = next((node.meta.get("shape") for node in module.graph.nodes if node.op == "placeholder"), None)
    batch = shape[0] if shape else None
    if batch is None:
        return
    for node in module.graph.nodes:
        if node.target not in (_aten.view.default, _aten.reshape.default):
            continue
        size = list(node.args[1])
        rows = node.args[0].meta.get("shape", ())[:1]
        if size and size[0] == batch and rows == (batch,) and -1 not in size:
            node.args = (node.args[0], [-1, *size[1:]])


def given(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator's call by the names of its schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _tensor(module: fx.GraphModule, value: Any) -> Tensor | None:
    """What an argument names, where it is a weight of the module."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    found: Tensor = operator.attrgetter(str(value.target))(module)
    return found


def _convolution(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    named = given(node)
    weight, bias = _tensor(module, named.get("weight")), _tensor(module, named.get("bias"))
    if weight is None or weight.dim() != 4 or (bias is None and named.get("bias") is not None):
        return None
    if named.get("transposed"):
        return None
    groups = named.get("groups", 1)
    padding = named.get("padding", 0)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=_pair(named.get("stride", 1)),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(named.get("dilation", 1)),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return _filled(layer, weight=weight, bias=bias)


def _linear(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    named = given(node)
    weight, bias = _tensor(module, named["weight"]), _tensor(module, named.get("bias"))
    if weight is None or weight.dim() != 2 or (bias is None and named.get("bias") is not None):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(layer, weight=weight, bias=bias)


def _norm(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    named = given(node)
    shape = named["input"].meta.get("shape")
    if shape is None or len(shape) != 4:
        return None
    tensors = {name: _tensor(module, named.get(name)) for name in ("weight", "bias", "running_mean", "running_var")}
    mean, variance = tensors["running_mean"], tensors["running_var"]
    if mean is None or variance is None or (tensors["weight"] is None) != (tensors["bias"] is None):
        return None
    layer = nn.BatchNorm2d(len(mean), eps=named["eps"], affine=tensors["weight"] is not None, device="meta")
    filled = _filled(layer, weight=tensors["weight"], bias=tensors["bias"])
    filled._buffers |= {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.tensor(0)}
    return filled


def _filled(layer: nn.Module, **parameters: Tensor | None) -> nn.Module:
    for name, value in parameters.items():
        if value is not None:
            kept = value if isinstance(value, nn.Parameter) else nn.Parameter(value, value.is_floating_point())
            layer._parameters[name] = kept
    return layer.eval()


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = [int(one) for one in value]
    return (values[0], values[-1])


def _into_module(module: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    weights = [value for value in node.all_input_nodes if value.op == "get_attr"]
    name = _name(module, node, weights)
    _place(module, name, layer)
    with module.graph.inserting_before(node):
        call = module.graph.call_module(name, (node.args[0],))
    call.meta["shape"] = node.meta.get("shape", ())
    read = [user for user in node.users if user.target is operator.getitem]
    if node.target is _SEVERAL:  # the output, and statistics that only training reads
        for user in read:
            if user.args[1] == 0:
                user.replace_all_uses_with(call)
            module.graph.erase_node(user)
    else:
        node.replace_all_uses_with(call)
    module.graph.erase_node(node)


def _function(node: fx.Node) -> Callable[..., Any] | None:
    """The function that users of torch would call, which the analysis of networks knows."""
    operation, first = node.target, node.args[0] if node.args else None
    if operation in _IN_PLACE and isinstance(first, fx.Node) and len(first.users) == 1:
        operation = _IN_PLACE[operation]  # nobody else sees what is overwritten
    if operation is _aten.hardtanh.default:
        return F.relu6 if node.args[1:] == (0, 6) else None
    return _FUNCTIONS.get(operation)


def _name(module: fx.GraphModule, node: fx.Node, weights: list[fx.Node]) -> str:
    """The common parent of the weights, where only they are in it and no other call has it, else one of its own."""
    parents = {str(weight.target).rpartition(".")[0] for weight in weights}
    parent = next(iter(parents)) if len(parents) == 1 else ""
    if parent:
        holder = module.get_submodule(parent)
        few = len(holder._parameters) + len(holder._buffers) <= _MOST_IN_A_LAYER and not holder._modules
        held = {f"{parent}.{name}" for name in (*holder._parameters, *holder._buffers)} if few else set[str]()
        spare = {f"{parent}.num_batches_tracked"}
        if few and type(holder) is nn.Module and held - spare <= {str(weight.target) for weight in weights}:
            return parent
    base, count = (parent or str(weights[0].target)).replace(".", "_") + "_layer", 0
    while hasattr(module, f"{base}{count or ''}"):
        count += 1
    return f"{base}{count or ''}"


def _place(module: nn.Module, name: str, layer: nn.Module) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        module = module.get_submodule(parent)
    module._modules[leaf] = layer


def _into_function(graph: fx.Graph, node: fx.Node, function: Callable[..., Any]) -> None:
    args = node.args[:1] if function is F.relu6 else node.args
    with graph.inserting_before(node):
        made = graph.call_function(function, args, dict(node.kwargs))
    made.meta["shape"] = node.meta.get("shape", ())
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _drop_unread(module: fx.GraphModule) -> None:
    """Weights that no call reads any more leave the graph, and the module where they have become a layer's."""
    for node in reversed(list(module.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            target = str(node.target)
            module.graph.erase_node(node)
            parent, _, leaf = target.rpartition(".")
            holder = module.get_submodule(parent)
            if not isinstance(holder, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                holder._parameters.pop(leaf, None)
                holder._buffers.pop(leaf, None)


_LAYERS: dict[Any, Callable[[fx.GraphModule, fx.Node], nn.Module | None]] = {
    _aten.conv2d.default: _convolution,
    _aten.conv2d.padding: _convolution,
    _aten.convolution.default: _convolution,
    _aten.linear.default: _linear,
    _aten.batch_norm.default: _norm,
    _aten._native_batch_norm_legit_no_training.default: _norm,
}
_SEVERAL = _aten._native_batch_norm_legit_no_training.default
_IN_PLACE = {
    getattr(_aten, f"{name}_").default: getattr(_aten, name).default
    for name in (
        "relu",
        "leaky_relu",
        "sigmoid",
        "tanh",
        "silu",
        "hardswish",
        "hardsigmoid",
        "gelu",
        "hardtanh",
        "relu6",
    )
    if hasattr(_aten, f"{name}_")
}
_DROPPED = frozenset([_aten.dropout.default, _aten.dropout_.default, _aten.feature_dropout.default])
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    _aten.relu.default: torch.relu,
    _aten.relu_.default: torch.relu_,
    _aten.leaky_relu.default: F.leaky_relu,
    _aten.sigmoid.default: torch.sigmoid,
    _aten.tanh.default: torch.tanh,
    _aten.silu.default: F.silu,
    _aten.relu6.default: F.relu6,
    _aten.hardswish.default: F.hardswish,
    _aten.gelu.default: F.gelu,
    _aten.hardsigmoid.default: F.hardsigmoid,
    _aten.add.Tensor: torch.add,
    _aten.add_.Tensor: operator.iadd,
    _aten.mul.Tensor: torch.mul,
    _aten.cat.default: torch.cat,
    _aten.flatten.using_ints: torch.flatten,
    _aten.max_pool2d.default: F.max_pool2d,
    _aten.avg_pool2d.default: F.avg_pool2d,
    _aten.adaptive_avg_pool2d.default: F.adaptive_avg_pool2d,
}
