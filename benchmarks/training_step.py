"""Which way of computing a versatile layer trains faster, and what a training step of the student takes.

    python -m benchmarks.training_step --layers              # a layer: expanded weights, or a convolution for each crop
    python -m benchmarks.training_step --network resnet20    # a step of distillation: student against original

Forward and backward, medians of alternating runs, as ratios to the ordinary layer or to the original network trained
with the same teacher.
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

SHAPES = ((16, 16, 32), (32, 32, 16), (64, 64, 8), (64, 64, 56), (256, 256, 14), (512, 512, 7))


def main() -> None:
    """Parse and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--network", choices=["resnet20", "resnet56", "vdsr"])
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
    set_forms(student, device)
    teacher, images = teacher.to(device), torch.randn(arguments.batch, *shape, device=device)

    def step(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.requires_grad_(True).to(device).parameters(), 1e-9)

        def run() -> None:
            with torch.no_grad():
                wanted = teacher(images)
            distillation_loss(model(images), wanted, 4.0).backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    timings = in_turns(
        {"original": step(copy.deepcopy(teacher)), "student": step(student)},
        rounds=arguments.rounds,
        most_seconds=60.0,
    )
    seconds = timings["student"].median
    share = timings["original"].median / seconds
    print(f"{name} {kind}: {arguments.batch / seconds:.0f} images/s, {share:.2f} of the original's", flush=True)


if __name__ == "__main__":
    main()
