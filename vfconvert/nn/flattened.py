"""A Linear on a flattened feature map, as the convolution of the whole map that it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

Features = tuple[int, int, int]
CONVOLUTION = "conv"  # name of the convolution within


class FlattenedConv(nn.Module):
    """`(B, C h w) -> (B, N)`: the input as features `(B, C, h, w)`, a convolution of `h x w` without padding on them.

    `conv` is an `nn.Conv2d`, or what takes its place.
    """

    def __init__(self, features: Features, conv: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.conv = conv

    @classmethod
    def of(cls, linear: nn.Linear, features: Features) -> FlattenedConv:
        """The same function, with the Linear's own numbers (the weight is a view of them, the bias its very own)."""
        channels, height, width = features
        outputs = linear.out_features
        conv = nn.Conv2d(channels, outputs, (height, width), bias=linear.bias is not None, device="meta")
        weight = linear.weight.detach().view(outputs, channels, height, width)
        conv.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
        conv.bias = linear.bias
        new = cls(features, conv)
        return new.train(linear.training)

    def as_linear(self) -> nn.Linear:
        """The Linear that computes the same, its weight a view of the convolution's, which is an ordinary one.

        Raises `TypeError` where it is not.
        """
        if not isinstance(self.conv, nn.Conv2d):
            raise TypeError(f"got a {type(self.conv).__name__}, expected a Conv2d; replace versatile layers first")
        outputs, inputs = self.conv.out_channels, self.conv.weight[0].numel()
        linear = nn.Linear(inputs, outputs, bias=self.conv.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.conv.weight.detach().flatten(1), self.conv.weight.requires_grad)
        if isinstance(self.conv.bias, nn.Parameter):
            linear.bias = self.conv.bias
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C h w) -> (B, N)`."""
        found: Tensor = self.conv(x.reshape(-1, *self.features)).flatten(1)
        return found

    def extra_repr(self) -> str:
        """The features."""
        return f"features={self.features}"


def with_flattened_convs(model: nn.Module, linears: Mapping[str, Features]) -> nn.Module:
    """A copy of a network, on the same numbers, with these Linears (by name) as convolutions of their features."""
    tensors = (*model.parameters(), *model.buffers())
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name, features in linears.items():
        parent, _, leaf = name.rpartition(".")
        linear = twin.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{name} is a {type(linear).__name__}, expected a Linear")
        twin.get_submodule(parent)._modules[leaf] = FlattenedConv.of(linear, features)
    return twin


def flattened_convs(model: nn.Module) -> dict[str, Features]:
    """The features of every such convolution, by the name that the Linear had."""
    return {name: module.features for name, module in model.named_modules() if isinstance(module, FlattenedConv)}
