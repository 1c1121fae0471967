"""The networks of the benchmark weights: CIFAR ResNets (He et al. 2016, option A) and VDSR (Kim et al. 2016).

They also serve `--arch benchmarks/networks.py:resnet20` on the command line.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroPaddedShortcut(nn.Module):
    """Every second pixel, and as many zero channels on each side as the width grows by half."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        side = self.added // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 else ZeroPaddedShortcut(outputs - inputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """`6 n + 2` layers: a stem, three stages of `n` blocks with 16, 32 and 64 channels, a classifier."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16
        for stage, outputs in enumerate((16, 32, 64), start=1):
            first = BasicBlock(width, outputs, 1 if stage == 1 else 2)
            rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            width = outputs
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class ResidualLayer(nn.Module):
    """One of VDSR's convolutions with its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Vdsr(nn.Module):
    """Twenty 3x3 convolutions that predict what an enlarged luminance image lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.residual_layer = nn.Sequential(*(ResidualLayer() for _ in range(18)))
        self.output = nn.Conv2d(64, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output(self.residual_layer(F.relu(self.input(x))))


def resnet20() -> CifarResNet:
    """0.27 M parameters."""
    return CifarResNet(3)


def resnet56() -> CifarResNet:
    """0.85 M parameters."""
    return CifarResNet(9)


def vdsr() -> Vdsr:
    """0.66 M parameters."""
    return Vdsr()
