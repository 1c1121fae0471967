"""Small networks that put lowering to the test, converted at random as a fit would leave them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.fitting.orders import InputOrders
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Wish, make_plan
from vfconvert.rewriting import rewrite


class Block(nn.Module):
    """A residual block, in place wherever it can be."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.down: nn.Module = nn.Identity()
        if channels != out or stride != 1:
            self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y)


class Residual(nn.Module):
    """Two residual streams and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class Mixed(nn.Module):
    """Concatenations, squeeze and excitation, depthwise, groups, other activations, a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 24, (1, 5), padding="same")
        self.norm = nn.BatchNorm2d(40)
        self.depthwise = nn.Conv2d(40, 40, 3, padding=1, groups=40, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(40)
        self.squeeze, self.excite = nn.Conv2d(40, 8, 1), nn.Conv2d(8, 40, 1)
        self.grouped = nn.Conv2d(40, 32, 3, stride=2, groups=2, padding=2, dilation=2, padding_mode="replicate")
        self.twice = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 12, 4, padding=1)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = self.norm(torch.cat([self.act(self.left(x)), F.relu(self.right(x), inplace=True)], dim=1))
        x = F.relu6(self.depthwise_norm(self.depthwise(x)))
        x = x * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = self.act(self.grouped(x))
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return F.interpolate(self.last(F.max_pool2d(x, 2)), scale_factor=2)


class Plain(nn.Module):
    """A chain with a final correction of its input, as super-resolution has it; nothing but convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(layer for _ in range(3) for layer in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.ReLU()))
        )
        self.first, self.last = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.body(self.first(x).relu()))


WISHES = {
    "spatial": Wish(spatial=True),
    "lines": Wish(spatial=True, crops="lines"),
    "channel": Wish(spatial=False, channel=True),
    "half": Wish(spatial=False, channel=True, channel_stride=0.5),
    "three windows": Wish(spatial=True, channel=True, windows=3, channel_stride=2),
    "both": Wish(spatial=True, channel=True),
}


def converted(teacher: nn.Module, example: Tensor, wish: Wish, seed: int = 0) -> tuple[nn.Module, Network]:
    """The network in float64 with random numbers, its outputs assigned at random, and its graph."""
    teacher = teacher.double().eval()
    network = trace(teacher, example.double())
    assert network is not None
    layers = profile(teacher, example.double())
    student = rewrite(teacher, make_plan(teacher, layers, network.following_norm, wish)).eval()
    orders, random = InputOrders(teacher, network, student), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in layers.order:
            layer = student.get_submodule(name)
            if isinstance(layer, VersatileConv2d) and layer.geometry.groups == 1:
                layer.rows.copy_(layer.rows[torch.randperm(len(layer.rows), generator=random)])
                if layer.spec.windows > 1 and (order := orders.of(name)) is not None:
                    layer.order = torch.tensor(order)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=random))
                module.running_var.uniform_(0.5, 2, generator=random)
            if isinstance(module, VersatileConv2d) and module.scale is not None:
                module.scale.copy_(torch.randn(module.scale.shape, generator=random))
    return student, network
