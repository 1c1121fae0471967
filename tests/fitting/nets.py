"""Small networks for the fit, each with what makes it different, in eval mode with statistics that are not trivial."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualNet(nn.Module):
    """A stem, a residual block with an identity skip, one with a projection, a classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.project = nn.Conv2d(width, 2 * width, 1, stride=2)
        self.classifier = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + x)
        x = F.relu(self.norm3(self.conv3(x)) + self.project(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PlainRestorer(nn.Module):
    """No norm, no bias in the middle, and a skip over everything, as in super-resolution."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=bias)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, bias=bias)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, bias=bias, groups=2)
        self.last = nn.Conv2d(8, 1, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.relu(self.grouped(F.relu(self.middle(F.relu(self.first(x)))))))


class DataDependent(nn.Module):
    """A branch on the values of the input, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = self.second(x) if float(x.detach().mean()) >= 0 else x
        return self.classifier(x.mean((2, 3)))


def settled(model: nn.Module, channels: int = 3) -> nn.Module:
    """Give the norms running statistics and slopes of their own, then switch to eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    with torch.no_grad():
        model.train()(images(64, channels))
    return model.eval()


def images(count: int, channels: int = 3) -> Tensor:
    """Smooth random images `(N, C, 12, 12)`, always the same."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(count, channels, 4, 4, generator=generator)
    fine = torch.randn(count, channels, 12, 12, generator=generator)
    return F.interpolate(coarse, size=12, mode="bilinear") + 0.3 * fine
