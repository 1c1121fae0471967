"""One small network in every format, and relatives that take other inputs, to be run by a bench."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from vfconvert.silence import silenced

SHAPE = (1, 3, 8, 8)
QUICK = {"rounds": 2, "warm_up": 0, "memory": False}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def export_onnx(
    path: Path, model: nn.Module | None = None, shape: tuple[int, ...] = SHAPE, axes: tuple[int, ...] = (0,)
) -> Path:
    """Write an ONNX file whose input has variable lengths at `axes`."""
    varying = {"input": {axis: f"d{axis}" for axis in axes}}
    with silenced():
        example = (torch.zeros(shape),)
        torch.onnx.export(model or network(), example, path, dynamo=False, input_names=["input"], dynamic_axes=varying)
    return path


def export_program(path: Path, model: nn.Module, *example: torch.Tensor) -> Path:
    with silenced():
        torch.export.save(torch.export.export(model, example), path)
    return path


def export_script(path: Path, model: nn.Module) -> Path:
    with silenced():
        torch.jit.save(torch.jit.trace(model, torch.zeros(SHAPE)), path)
    return path


def write_files(folder: Path) -> SimpleNamespace:
    pickled = folder / "pickled.pt"
    torch.save(network(), pickled)
    return SimpleNamespace(
        onnx=export_onnx(folder / "a.onnx"),
        sized=export_onnx(folder / "sized.onnx", axes=(0, 2, 3)),
        gray=export_onnx(folder / "gray.onnx", nn.Conv2d(1, 2, 3), (1, 1, 8, 8)),
        fixed=export_onnx(folder / "fixed.onnx", shape=(4, 3, 8, 8), axes=()),
        program=export_program(folder / "a.pt2", network(), torch.zeros(SHAPE)),
        script=export_script(folder / "a.pt", network()),
        pickled=pickled,
    )
