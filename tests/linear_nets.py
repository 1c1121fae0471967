"""Small networks with a Linear on a flattened map, one for each thing that decides whether it may be a convolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.linears import FlattenedLinear, flattened_linears

CHANNELS, SIDE, OUTPUTS = 4, 3, 8
INPUTS = CHANNELS * SIDE * SIDE


class Flat(nn.Module):
    """A convolution, a pool to 3x3, a flatten, two Linear layers; `flatten` and `between` are what a test varies."""

    def __init__(
        self,
        flatten: Callable[[Tensor], Tensor] = lambda x: torch.flatten(x, 1),
        between: nn.Module | None = None,
        linear: nn.Module | None = None,
        side: int = SIDE,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.between = nn.Identity() if between is None else between
        self.first = nn.Linear(CHANNELS * side * side, OUTPUTS) if linear is None else linear
        self.last = nn.Linear(OUTPUTS, 5)
        self._flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(F.relu(self.conv(x)))
        return self.last(F.relu(self.first(self.between(self._flatten(features)))))


class Twice(Flat):
    """Its first Linear is called for two maps."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(F.relu(self.conv(x)))
        return self.last(self.first(features.flatten(1)) + self.first((2 * features).flatten(1)))


class Decides(Flat):
    """Its control flow depends on numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > -1e9 else x


class OwnLinear(nn.Linear):
    """A subclass with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


def parametrized() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(INPUTS, OUTPUTS))


def hooked() -> nn.Module:
    linear = nn.Linear(INPUTS, OUTPUTS)
    linear.register_forward_hook(lambda module, inputs, output: None)
    return linear


def tied() -> Flat:
    net = Flat()
    net.again = nn.Linear(INPUTS, OUTPUTS, bias=False)
    net.again.weight = net.first.weight
    return net


def shared() -> Flat:
    net = Flat()
    net.other = net.first
    return net


def looked_at(net: nn.Module, side: int = 8) -> tuple[tuple[FlattenedLinear, ...], Network | None]:
    """What is found of a network's Linear layers, and its graph."""
    net.eval()
    noise = torch.randn(2, 3, side, side)
    network = trace(net, noise)
    return flattened_linears(net, profile(net, noise), network), network
