"""Layers that were not converted, with their weights in the order of the channels that reach them."""

from __future__ import annotations

from torch import Tensor, fx, nn
from torch.nn import functional as F

from vfconvert.lowering.values import Emitter


def adaptable(module: nn.Module) -> bool:
    """Whether a kept layer is a convolution whose weight may be rearranged."""
    hooked = bool(module._forward_hooks or module._forward_pre_hooks)
    if not isinstance(module, nn.Conv2d) or type(module) is not nn.Conv2d:
        return False
    return module.groups == 1 and module.padding_mode == "zeros" and not hooked


def one_piece(emitter: Emitter, name: str, module: nn.Module, piece: fx.Node, at: Tensor) -> fx.Node:
    """A norm or a depthwise convolution on the channels `at` of a tensor."""

    def stored(kind: str, tensor: Tensor | None) -> fx.Node | None:
        return None if tensor is None else emitter.tensor(f"{name}_{kind}", tensor.detach()[at.to(tensor.device)])

    if isinstance(module, nn.Conv2d):
        weight, bias = stored("weight", module.weight), stored("bias", module.bias)
        return emitter.call(F.conv2d, piece, weight, bias, module.stride, module.padding, module.dilation, len(at))
    if not isinstance(module, nn.BatchNorm2d):
        raise TypeError(f"{name} is no layer with a weight for each channel")
    mean, variance = stored("mean", module.running_mean), stored("variance", module.running_var)
    weight, bias = stored("weight", module.weight), stored("bias", module.bias)
    return emitter.call(F.batch_norm, piece, mean, variance, weight, bias, False, 0.0, module.eps)


def reordered_convolution(
    emitter: Emitter,
    name: str,
    module: nn.Conv2d,
    given: fx.Node,
    inputs: Tensor,
    factor: Tensor | None,
    outputs: Tensor,
) -> fx.Node:
    """A convolution whose input lies in the order `inputs`, lacks `factor`, and whose output is wanted as `outputs`."""
    weight = module.weight.detach()[:, inputs.to(module.weight.device)]
    if factor is not None:
        weight = weight * factor.to(weight).view(1, -1, 1, 1)
    at = outputs.to(weight.device)
    bias = None if module.bias is None else emitter.tensor(f"{name}_bias", module.bias.detach()[at])
    stored = emitter.tensor(f"{name}_weight", weight[at])
    return emitter.call(F.conv2d, given, stored, bias, module.stride, module.padding, module.dilation, 1)
