"""A fitted CIFAR ResNet in eight bits: bytes, accuracy on held-out images and error, by how its weights are stored.

    python -m benchmarks.eight_bits DATA --network resnet56 --kind spatial

DATA is the folder of `benchmarks.accuracy`. Every converted layer is computed as an ordinary convolution. Weights are
stored whole; as banks with steps of their own for as many masks as it takes to lose at most 1.5 times what scales of
the outputs lose (as the product has it), or 1.25 times; and as banks alone. Errors are those of the network's outputs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import networks
from benchmarks.accuracy import Cifar
from benchmarks.stages import WISHES
from benchmarks.training import start_of
from vfconvert.analysis.profile import profile
from vfconvert.exporting.onnx import export_onnx
from vfconvert.lowering.choice import as_convolutions
from vfconvert.nn import VersatileConv2d
from vfconvert.quantizing import quantize_int8, shared_weights
from vfconvert.quantizing.sessions import open_session

WAYS = {"whole": 0.0, "banks": 1.5, "banks, at 1.25 times": 1.25, "banks alone": float("inf")}


def main() -> None:
    """Fit, write every file to a temporary folder, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--kind", default="spatial", choices=list(WISHES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="on which the network is fitted")
    parser.add_argument("--cache", type=Path, help="folder in which fitted networks are kept")
    arguments = parser.parse_args()
    teacher = getattr(networks, arguments.network)()
    teacher.load_state_dict(load_file(arguments.data / f"{arguments.network}.safetensors"))
    teacher.eval()
    cifar = Cifar(arguments.data / "cifar10-jpeg.zip")
    images, labels = cifar.judging("held-out")
    calibration = cifar.calibration(64, arguments.seed)
    student = start_of(teacher, cifar, arguments.kind, "fit", arguments).eval()
    layers = [layer for layer in student.modules() if isinstance(layer, VersatileConv2d)]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "float32.onnx"
        export_onnx(as_convolutions(student, profile(student, images[:1])).model, images[:2], source, metadata={})
        wanted = _told("float32", source, images, labels, None)
        for way, coarser in WAYS.items():
            shared_weights._COARSER = coarser
            path = Path(name) / "int8.onnx"
            quantize_int8(source, path, calibration, layers if coarser else ())
            _told(way, path, images, labels, wanted)


def _told(way: str, path: Path, images: Tensor, labels: Tensor, wanted: Tensor | None) -> Tensor:
    outputs = torch.as_tensor(open_session(path, threads=1).run_all(images)["output"])
    right = 100 * float((outputs.argmax(1) == labels).float().mean())
    line = f"{way}: {path.stat().st_size:,} bytes, {right:.2f} %"
    if wanted is not None:
        agreement = 100 * float((outputs.argmax(1) == wanted.argmax(1)).float().mean())
        error = float((outputs - wanted).norm() / wanted.norm())
        line += f", {agreement:.2f} % agree with float32, relative error {error:.4f}"
    print(line, flush=True)
    return outputs


if __name__ == "__main__":
    main()
