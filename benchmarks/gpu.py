"""Latency of converted networks in torch on a GPU, as ratios to the original: eager, torch.compile, float32, bf16.

    python -m benchmarks.gpu                                   # resnet18 and resnet50, batches of 1 and 32
    python -m benchmarks.gpu --networks resnet50 --batches 32 --ways eager     # compiling takes most of the time
    python -m benchmarks.gpu --device cpu --batches 1 --networks resnet18

Weights are random (see `benchmarks.converted`); forms are chosen by products. Calls are timed in turns, each until the
device is done.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.converted import WISHES, converted
from benchmarks.latency import NETWORKS
from vfconvert.analysis.profile import profile
from vfconvert.lowering.choice import fastest
from vfconvert.measuring.timing import in_turns
from vfconvert.rewriting import with_convolutions

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Parse, convert, measure, print a line for each network, batch, number type, way of running and kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18,resnet50")
    parser.add_argument("--kinds", default="spatial,channel,both")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--ways", default="eager,compiled")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    print(torch.cuda.get_device_name(arguments.device) if cuda else "CPU", f"torch {torch.__version__}", flush=True)
    for name in arguments.networks.split(","):
        build, shape = NETWORKS[name]
        torch.manual_seed(0)
        teacher, example = build().eval(), torch.randn(shape)
        models: dict[str, nn.Module] = {"original": teacher}
        for kind in arguments.kinds.split(","):
            student, network = converted(teacher, example, WISHES[kind])
            models[f"{kind} plain"] = with_convolutions(copy.deepcopy(student))  # what `--forms plain` comes to
            models[kind] = fastest(student, network, profile(student, example), None).model
        for batch in map(int, arguments.batches.split(",")):
            for dtype in arguments.dtypes.split(","):
                measure(name, models, example.repeat(batch, 1, 1, 1), dtype, arguments)


@torch.no_grad()
def measure(name: str, models: dict[str, nn.Module], x: Tensor, dtype: str, arguments: argparse.Namespace) -> None:
    """Time all networks, each way that was asked for, in turns."""
    x, ways = x.to(arguments.device, DTYPES[dtype]), arguments.ways.split(",")
    calls: dict[str, Callable[[], object]] = {}
    for kind, model in models.items():
        moved = copy.deepcopy(model).to(arguments.device, DTYPES[dtype]).eval()
        for way in ways:
            calls[f"{way} {kind}"] = _until_done(moved if way == "eager" else torch.compile(moved), x)
    timings = in_turns(calls, rounds=arguments.rounds, warm_up=3)
    for way in ways:
        base = timings[f"{way} original"].median
        for kind in models:
            found = timings[f"{way} {kind}"].median
            print(f"{name} batch {len(x)} {dtype} {way} {kind}: {1e3 * found:.2f} ms, {found / base:.3f}", flush=True)


def _until_done(model: Callable[[Tensor], object], x: Tensor) -> Callable[[], object]:
    def call() -> object:
        output = model(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return output

    return call


if __name__ == "__main__":
    main()
