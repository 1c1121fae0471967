"""A small residual network whose convolutions are all versatile, with weights that tell every channel apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.exporting.archives import IMAGES
from vfconvert.analysis.graph import trace
from vfconvert.lowering.network import lower
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.specs import ConvGeometry, VersatileSpec


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = versatile_conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = versatile_conv(outputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.same = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + x if self.same else y)


class ResidualNetwork(nn.Module):
    """`(B, 3, H, W) -> (B, 10)`, `1 + 6 * blocks` convolutions of 3x3."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = versatile_conv(3, 16, 1), nn.BatchNorm2d(16)
        widths = [(16, 16, 1)] * blocks + [(16, 32, 2)] + [(32, 32, 1)] * (blocks - 1)
        widths += [(32, 64, 2)] + [(64, 64, 1)] * (blocks - 1)
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def versatile_conv(inputs: int, outputs: int, stride: int) -> VersatileConv2d:
    """Squares and lines, two channel windows where there are channels for it, outputs in random order."""
    geometry = ConvGeometry(
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=(3, 3),
        **{"stride": (stride, stride), "padding": (1, 1), "bias": False},
    )
    crops, levels = crops_and_levels((3, 3), "lines")
    windows = {"windows": 2, "channel_stride": inputs // 4} if inputs >= 8 else {}
    layer = VersatileConv2d(geometry, VersatileSpec(crops=crops, levels=levels, **windows))
    layer.rows.copy_(torch.randperm(len(crops) * layer.spec.windows * len(layer.weight))[:outputs])
    return layer


def network(blocks: int) -> ResidualNetwork:
    """With BatchNorm statistics and slopes drawn at random."""
    torch.manual_seed(0)
    model = ResidualNetwork(blocks).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model


@pytest.fixture(scope="session")
def versatile_network() -> ResidualNetwork:
    return network(blocks=1)


@pytest.fixture(scope="session")
def make_versatile() -> Callable[[int, int, int], VersatileConv2d]:
    return versatile_conv


@pytest.fixture(scope="module")
def lowered(versatile_network: nn.Module) -> nn.Module:
    """Its inference form."""
    return lower(versatile_network, trace(versatile_network, IMAGES[:2])).model
