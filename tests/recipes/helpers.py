"""A small network with every kind of versatile layer, and files of it with one thing changed."""

import copy
import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import profile
from vfconvert.exporting.recipe import write_safetensors
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Wish, make_plan
from vfconvert.rewriting import rewrite

RESNET = "torchvision:resnet18"
WISH = Wish(spatial=True, channel=True, crops="lines", windows=3)


class Small(nn.Module):
    """`(B, 3, H, W) -> (B, 5)`: a grouped convolution, one with a bias of its own, a block and a tensor used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.block = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.grouped = nn.Conv2d(32, 32, 3, padding="same", groups=2)
        self.last, self.tied = nn.Linear(32, 5), nn.Linear(32, 5)
        self.tied.weight = self.last.weight
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(self.block(self.bn(self.stem(x)).relu())).mean((2, 3))
        return self.last(y) + self.tied(y)


def converted(model: nn.Module, wish: Wish, side: int) -> nn.Module:
    """A versatile network with random rows, orders, scales and statistics."""
    example, model = torch.randn(2, 3, side, side), copy.deepcopy(model)
    shared = model._modules.pop("again", None)  # layers of two names are not converted
    network = trace(model.eval(), example)
    student = rewrite(model, make_plan(model, profile(model, example), network.following_norm, wish)).eval()
    for module in student.modules():
        if isinstance(module, VersatileConv2d) and module.geometry.groups == 1:
            module.rows.copy_(module.rows[torch.randperm(len(module.rows))])
            if module.spec.windows > 1:
                module.order = torch.randperm(module.geometry.group_inputs)
        if isinstance(module, VersatileConv2d) and module.scale is not None:
            module.scale.data.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 2)
    if shared is not None:
        student.again = student.block
    return student


def write(model: nn.Module, path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"architecture": None, "architecture_arguments": {}, "input_shape": (3, 16, 16)}
    write_safetensors(model, path, **{**given, "metadata": {"seed": "3"}, **changes})
    return path


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put(path: Path, header: dict[str, Any], numbers: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)
    return path


def retold(source: Path, target: Path, change: Any) -> Path:
    """The file with `change` made to its recipe, in place."""
    header, numbers = header_of(source)
    recipe = json.loads(header["__metadata__"]["vfconvert"])
    change(recipe)
    header["__metadata__"]["vfconvert"] = json.dumps(recipe)
    return put(target, header, numbers)
