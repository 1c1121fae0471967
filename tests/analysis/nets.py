"""Tiny networks, each named for what is odd about it, with counts made by hand for the input beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainNet(nn.Module):
    """A convolution with a norm, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class GroupedNet(nn.Module):
    """Strides, groups, dilation, a rectangular kernel and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, (3, 1), stride=2, groups=2, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.up = nn.ConvTranspose2d(8, 2, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.depthwise(self.grouped(x)))


class SharedModuleNet(nn.Module):
    """One convolution under two names, called once by each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.block = nn.Sequential(nn.ReLU(), self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.first(x))


class RepeatedNet(nn.Module):
    """One convolution called three times, at three sizes, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.unused = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(self.conv(x)))


class TiedNet(nn.Module):
    """Two convolutions with one weight, and a weight used without its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 2, 1)
        self.two = nn.Conv2d(2, 2, 1)
        self.two.weight = self.one.weight
        self.bare = nn.Linear(2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x)).mean((2, 3)) @ self.bare.weight


class AttentionNet(nn.Module):
    """Products of matrices that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x).flatten(2).transpose(1, 2)  # (B, L, 4)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


class UnknownNet(nn.Module):
    """An operator without a formula beside one that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.conv(x).flatten(2), x.flatten(2)) + torch.dot(x.flatten(), x.flatten())


@dataclass(frozen=True)
class Counted:
    """A network, the shape it takes, and its MACs by module and numbers of parameters, counted by hand."""

    net: type[nn.Module]
    shape: tuple[int, ...]
    macs: dict[str, int]
    parameters: int


COUNTED = (
    # conv 8·3·3·3 = 216 at 6·6 places; classifier 8·10; twice each, for two images
    Counted(
        PlainNet,
        (2, 3, 6, 6),
        {"": 15712, "conv": 15552, "classifier": 160},
        parameters=216 + 8 + 16 + 80 + 10,
    ),
    # 9x9: grouped 8·2·3 = 48 at 4·5; depthwise 8·9 = 72 at 4·5; up 8·2·4 = 64 at each of its 4·5 inputs
    Counted(
        GroupedNet,
        (1, 4, 9, 9),
        {"": 3680, "grouped": 960, "depthwise": 1440, "up": 1280},
        parameters=48 + 72 + 64,
    ),
    # 2·2·9 = 36 at 5·5, twice; the second call runs within the block
    Counted(SharedModuleNet, (1, 2, 5, 5), {"": 1800, "first": 1800, "block": 900}, parameters=36),
    # 36 at 8·8, 4·4 and 2·2
    Counted(RepeatedNet, (1, 2, 16, 16), {"": 3024, "conv": 3024}, parameters=2 * (36 + 2)),
    # 4 at 3·3, twice, and 2·2 for the matrix product
    Counted(TiedNet, (1, 2, 3, 3), {"": 76, "one": 36, "two": 36}, parameters=4 + 2 + 2 + 4),
    # project 4·3·4 = 48 at 3·3; 9 tokens: queries by keys 9·9·4, weights by values 9·9·4
    Counted(AttentionNet, (1, 3, 6, 6), {"": 1080, "project": 432}, parameters=48 + 4),
)
