"""Where versatile filters win and where they do not: the smallest network that loses so many points, beside others.

    python -m benchmarks.alternatives DATA find --network resnet56 --cost params --lose 1.0,0.5
    python -m benchmarks.alternatives DATA at --network resnet56 --cost params --shares 0.62,0.71 --methods svd,prune
    python -m benchmarks.alternatives DATA at --shares 0.78 --methods versatile,tucker --seed 1    # another draw

`find` looks for the least share of the original's parameters (or executed MACs) at which the planned network loses at
most so many points of the held-out training images, in steps of 2 %. `at` gives other methods the same shares (and
`versatile`): `svd` (reduced-rank regression, a kxk and a 1x1 convolution), `tucker` (Tucker-2), `group` (plain group
convolution), `prune` (channels inside the blocks, cut by Torch-Pruning, which has to be installed). Every method gets
the same images, the rate of each layer by the same knapsack over the same sensitivities, and the same repair: least
squares on what each layer then sees, reconstruction of each block, a pass on the output. Accuracy on the test set is
printed beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.accuracy import Cifar, accuracy
from benchmarks.methods import METHODS, Method, student_of
from benchmarks.subjects import Bench, bench_of
from vfconvert.analysis.counting import count_macs
from vfconvert.budget.knapsack import choose
from vfconvert.errors import BudgetError

_STEP = 0.02


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=["find", "at"])
    parser.add_argument("--network", default="resnet56", choices=["resnet20", "resnet56"])
    parser.add_argument("--cost", default="params", choices=["params", "macs"])
    parser.add_argument("--lose", default="1.0,0.5")
    parser.add_argument("--shares", default="0.5")
    parser.add_argument("--methods", default="svd,tucker,group,prune")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--effort", type=float, default=1.0, help="share of the usual steps of reconstruction")
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    bench = bench_of(arguments.data, arguments.network, arguments.seed, "held-out", cache=arguments.cache)
    bench = dataclasses.replace(bench, effort=arguments.effort)
    judge = Judge(bench, arguments.data)
    if arguments.what == "find":
        run = judge.versatile(arguments.cost)
        for points in map(float, arguments.lose.split(",")):
            share = least_share(run, points)
            print(f"{arguments.cost}: {share:.2f} is the least that loses at most {points} points", flush=True)
        return
    shares = [float(share) for share in arguments.shares.split(",")]
    for name in arguments.methods.split(","):
        if name == "versatile":
            run = judge.versatile(arguments.cost)
            for share in shares:
                run(share)
            continue
        method = METHODS[name](bench)
        for share in shares:
            judge.method(name, method, arguments.cost, share)


class Judge:
    """Converts, measures and prints; a loss is in points below the original on the same images."""

    def __init__(self, bench: Bench, data: Path) -> None:
        self._bench = bench
        self._test = Cifar(data / "cifar10-jpeg.zip").judging("test")
        self._held_out = accuracy(bench.teacher, *bench.judging)
        self._on_test = accuracy(bench.teacher, *self._test)
        print(f"original: {self._held_out:.2f} % held out, {self._on_test:.2f} % test", flush=True)

    def versatile(self, cost: str) -> Callable[[float], float]:
        """The loss of the planned network at a share."""
        found: dict[int, float] = {}

        def run(share: float) -> float:
            key = round(share / _STEP)
            if key not in found:
                table = self._bench.table
                plan = table.plan(choose(table, {cost: share * self._whole(cost)}).chosen)
                student = self._bench.convert(plan, reconstruct=True)
                macs = self._bench.measure(student).macs
                found[key] = self._report("versatile", cost, share, student, macs)
            return found[key]

        return run

    def method(self, name: str, method: Method, cost: str, share: float) -> None:
        """Another method at that share, or a line that it cannot reach it."""
        try:
            chosen = choose(method.table, {cost: share * self._whole(cost)}).chosen
        except BudgetError as error:
            print(f"{name}, {cost} {share:.2f}: not reached: {error}", flush=True)
            return
        student = student_of(self._bench, method, chosen)
        macs = count_macs(student, torch.zeros(1, 3, 32, 32)).total / self._bench.table.macs
        self._report(name, cost, share, student, macs)

    def _whole(self, cost: str) -> int:
        return self._bench.table.parameters if cost == "params" else self._bench.table.macs

    def _report(self, name: str, cost: str, share: float, student: nn.Module, macs: float) -> float:
        numbers = sum(parameter.numel() for parameter in student.parameters()) / self._bench.table.parameters
        held_out, test = accuracy(student, *self._bench.judging), accuracy(student, *self._test)
        loss = self._held_out - held_out
        print(
            f"{name}, {cost} {share:.2f}: {numbers:.3f} of the parameters, {macs:.3f} of the MACs, "
            f"held out {held_out:.2f} % (-{loss:.2f}), test {test:.2f} % (-{self._on_test - test:.2f})",
            flush=True,
        )
        return loss


def least_share(loss: Callable[[float], float], points: float) -> float:
    """By bisection in steps of 2 %, from a share that loses too much up to one that does not."""
    low, high = round(0.3 / _STEP), round(1 / _STEP)
    while high - low > 1:
        middle = math.ceil((low + high) / 2)
        if loss(middle * _STEP) <= points:
            high = middle
        else:
            low = middle
    return high * _STEP


if __name__ == "__main__":
    main()
