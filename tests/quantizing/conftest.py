"""A small converted network as a float32 file, and images for it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vfconvert.exporting import export_onnx
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.specs import ConvGeometry, VersatileSpec

METADATA = {"producer": "vfconvert", "seed": "3"}


class Slices(nn.Module):
    """A bank read by two convolutions, as in the inference form: the whole filters, and their inner column."""

    def __init__(self, inputs: int, primaries: int) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(primaries, inputs, 3, 3) / (3 * inputs**0.5))
        self.factor = nn.Parameter(torch.rand(primaries, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        column = self.bank[:, :, :, 1:2] * self.factor
        whole = nn.functional.conv2d(x, self.bank, padding=1)
        return torch.cat([whole, nn.functional.conv2d(x, column, padding=(1, 0))], 1)


def versatile(inputs: int, outputs: int) -> VersatileConv2d:
    geometry = ConvGeometry(
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=(3, 3),
        **{"padding": (1, 1), "bias": False},
    )
    crops, levels = crops_and_levels((3, 3), "squares")
    return VersatileConv2d(geometry, VersatileSpec(crops=crops, levels=levels))


def network() -> nn.Sequential:
    """`(B, 3, 12, 12) -> (B, 10)`, nearly all of its weights in one bank of `(96, 64, 3, 3)`."""
    torch.manual_seed(0)
    layers = [versatile(3, 64), nn.BatchNorm2d(64), nn.ReLU(), Slices(64, 96), nn.BatchNorm2d(192), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 10)).eval()


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, images: Tensor) -> Path:
    path = tmp_path_factory.mktemp("source") / "float32.onnx"
    export_onnx(network(), images[:1], path, metadata=METADATA)
    return path
