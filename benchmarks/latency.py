"""Latency of converted networks in ONNX Runtime, one image, as ratios to the original in the same run.

    python -m benchmarks.latency                                   # torchvision's networks, one and two threads
    python -m benchmarks.latency --networks resnet18,vdsr --threads 1
    python -m benchmarks.latency --prefer products                 # forms by products, none measured

Weights are random (see `benchmarks.converted`): a fit does not change what is computed. Every layer gets the form that
a table of its costs, measured first, says is fastest. Files are timed in turns; ratios are of medians.
"""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from collections.abc import Callable

import onnxruntime
import torch
import torchvision
from torch import nn

from benchmarks.converted import WISHES, converted
from benchmarks.networks import vdsr
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import profile
from vfconvert.lowering.choice import fastest, onnx_bytes, time_files
from vfconvert.lowering.costs import CostTable

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), (1, 3, 224, 224)),
    "resnet50": (lambda: torchvision.models.resnet50(weights=None), (1, 3, 224, 224)),
    "vgg16": (lambda: torchvision.models.vgg16(weights=None).features, (1, 3, 224, 224)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(weights=None), (1, 3, 224, 224)),
    "vdsr": (vdsr, (1, 1, 256, 256)),
}


def main() -> None:
    """Parse, convert, measure, print a line for each network, kind and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--kinds", default="spatial,channel,both")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--prefer", default="measured", choices=["measured", "products"])
    arguments = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {platform.machine()}", flush=True)
    for name in arguments.networks.split(","):
        build, shape = NETWORKS[name]
        torch.manual_seed(0)
        teacher, example = build().eval(), torch.randn(shape)
        for threads in map(int, arguments.threads.split(",")):
            measure(name, teacher, example, arguments.kinds.split(","), threads, arguments.prefer)


def measure(name: str, teacher: nn.Module, example: torch.Tensor, kinds: list[str], threads: int, prefer: str) -> None:
    """Time the original and all kinds of one network in turns."""
    before = count_macs(teacher, example).total
    numbers = sum(parameter.numel() for parameter in teacher.parameters())
    files, lines = {"original": onnx_bytes(teacher, example)}, {}
    table = CostTable(threads=threads) if prefer == "measured" else None
    for kind in kinds:
        if kind == "spatial" and name == "mobilenet_v2":
            continue  # its only kernels of more than one tap are depthwise
        student, network = converted(teacher, example, WISHES[kind])
        inference = fastest(student, network, profile(student, example), table)
        files[kind] = onnx_bytes(inference.model, example)
        macs = count_macs(inference.model, example).total
        share = sum(parameter.numel() for parameter in student.parameters()) / numbers
        forms = ", ".join(f"{count} {form}" for form, count in Counter(inference.variants.values()).most_common())
        lines[kind] = f"MACs {macs / before:.3f}, parameters {share:.3f} ({forms})"
    timings = time_files({kind: file for kind, file in files.items() if file is not None}, example, threads)
    base = timings["original"].median
    print(f"{name}, {threads} thread(s): original {1e3 * base:.1f} ms", flush=True)
    for kind, line in lines.items():
        found = timings[kind]
        print(
            f"  {kind}: {found.median / base:.3f} of the latency, {1e3 * found.median:.1f} ms "
            f"(quartiles {1e3 * found.spread:.1f} apart), {line}",
            flush=True,
        )


if __name__ == "__main__":
    main()
