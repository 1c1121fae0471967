"""Which way of computing a versatile layer trains faster, and what a training step of the student takes.

    python -m benchmarks.training_step --layers              # a layer: expanded weights, or a convolution for each crop
    python -m benchmarks.training_step --network resnet20    # a step of distillation: student against original
    python -m benchmarks.training_step --network vdsr --batch 8 --precisions fp32,bf16    # and the product's 16 bits

Forward and backward, medians of alternating runs, as ratios to the ordinary layer or to the original network trained
with the same teacher in the same precision. bf16 is with channels last, as the product has it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import networks
from benchmarks.stages import WISHES
from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import profile
from vfconvert.measuring.timing import in_turns
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import make_plan
from vfconvert.rewriting import rewrite
from vfconvert.specs import ConvGeometry
from vfconvert.tasks.structure import distillation_loss
from vfconvert.training.learner import set_forms
from vfconvert.training.objective import autocast

SHAPES = ((16, 16, 32), (32, 32, 16), (64, 64, 8), (64, 64, 56), (256, 256, 14), (512, 512, 7))


def main() -> None:
    """Parse and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--network", choices=["resnet20", "resnet56", "vdsr"])
    parser.add_argument("--precisions", default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.layers:
        for inputs, outputs, side in SHAPES:
            layer_times(inputs, outputs, side, arguments)
    if arguments.network:
        for kind in ("spatial", "channel", "both"):
            step_times(arguments.network, kind, arguments)


def layer_times(inputs: int, outputs: int, side: int, arguments: argparse.Namespace) -> None:
    """One 3x3 layer whose second half of outputs are the centres of the first."""
    device = torch.device(arguments.device)
    plain = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False).to(device)
    versatile = VersatileConv2d(ConvGeometry.of(plain)).to(device)
    x = torch.randn(arguments.batch, inputs, side, side, device=device, requires_grad=True)
    order = torch.randperm(outputs, device=device)

    def by_crop(given: Tensor) -> Tensor:
        weight = versatile.weight
        return torch.cat([F.conv2d(given, weight, padding=1), F.conv2d(given, weight[:, :, 1:2, 1:2])], 1)[:, order]

    calls = {"plain": plain, "expanded": versatile, "by crop": by_crop}
    timings = in_turns(
        {name: _step(call, x, device) for name, call in calls.items()}, rounds=arguments.rounds, most_seconds=20.0
    )
    base = timings["plain"].median
    said = ", ".join(f"{name} {timing.median / base:.2f}" for name, timing in timings.items() if name != "plain")
    print(
        f"{inputs}->{outputs} at {side}x{side}, batch {arguments.batch}: plain {1e3 * base:.1f} ms; {said}", flush=True
    )


def _step(call: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Callable[[], object]:
    def run() -> None:
        call(x).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def step_times(name: str, kind: str, arguments: argparse.Namespace) -> None:
    """A step of the student and of the original, each with the same pass of the teacher."""
    device = torch.device(arguments.device)
    shape = (1, 48, 48) if name == "vdsr" else (3, 32, 32)
    teacher = getattr(networks, name)().eval().requires_grad_(False)
    example = torch.randn(2, *shape)
    network = trace(teacher, example)
    if network is None:
        raise SystemExit("the network cannot be traced")
    student = rewrite(teacher, make_plan(teacher, profile(teacher, example), network.following_norm, WISHES[kind]))
    images = torch.randn(arguments.batch, *shape, device=device)
    calls = {}
    for precision in arguments.precisions.split(","):
        for which, model in (("original", teacher), ("student", student)):
            calls[f"{which}, {precision}"] = _distilling(model, teacher, images, precision)
    timings = in_turns(calls, rounds=arguments.rounds, most_seconds=60.0)
    for precision in arguments.precisions.split(","):
        seconds = timings[f"student, {precision}"].median
        share = timings[f"original, {precision}"].median / seconds
        print(
            f"{name} {kind}, {precision}: {arguments.batch / seconds:.0f} images/s, {share:.2f} of the original's",
            flush=True,
        )


def _distilling(model: nn.Module, teacher: nn.Module, images: Tensor, precision: str) -> Callable[[], object]:
    """A step of a copy of the model, computed as in the product's training."""
    device = images.device
    layout = torch.preserve_format if precision == "fp32" else torch.channels_last
    model, teacher = (copy.deepcopy(each).to(device, memory_format=layout) for each in (model, teacher))
    images = images.to(memory_format=layout)
    set_forms(model, device, precision)
    optimizer = torch.optim.SGD(model.requires_grad_(True).parameters(), 1e-9)

    def run() -> None:
        with autocast(device, precision):
            with torch.no_grad():
                wanted = teacher(images)
            got = model(images)
        distillation_loss(got, wanted, 4.0).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
