"""Small networks that call layers several times in one pass: a head on a pyramid, a recurrent block, own norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fitting.nets import settled


class Pyramid(nn.Module):
    """A head of two layers that runs on three levels of features, the smaller two at a half and a quarter."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        self.tower = nn.Conv2d(width, width, 3, padding=1)
        self.scores = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.relu(self.stem(x))]
        for layer in self.down:
            levels.append(F.relu(layer(levels[-1])))
        return torch.cat([self.scores(F.relu(self.tower(level), inplace=True)).flatten(2) for level in levels], 2)


class Recurrent(nn.Module):
    """A block of two layers that refines its state three times; with `norms` a BatchNorm follows each of its calls."""

    def __init__(self, width: int = 16, norms: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=not norms)
        self.norm: nn.Module = nn.BatchNorm2d(width) if norms else nn.Identity()
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        start = state = self.stem(x)
        for _ in range(3):
            state = start + self.second(F.relu(self.norm(self.first(F.relu(state)))))
        return self.last(F.relu(state)).mean((2, 3))


class OwnNorms(nn.Module):
    """A layer that is called twice, each time with a BatchNorm of that call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for norm in self.norms:
            x = F.relu(norm(self.twice(x)))
        return x.mean((2, 3))


class Decides(nn.Module):
    """A network whose control flow cannot be traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x if float(x.detach().abs().sum()) >= 0 else -x)


def pyramid() -> nn.Module:
    """For `--arch tests/repeated_nets.py:pyramid`."""
    torch.manual_seed(0)
    return Pyramid()


def recurrent() -> nn.Module:
    """For `--arch tests/repeated_nets.py:recurrent`: its state changes much from call to call."""
    torch.manual_seed(0)
    model = Recurrent()
    with torch.no_grad():
        model.first.weight.mul_(2)
        model.second.weight.mul_(2)
    return model


def normed() -> nn.Module:
    """A recurrent network with a norm, and statistics of its own."""
    torch.manual_seed(0)
    return settled(Recurrent(norms=True))
