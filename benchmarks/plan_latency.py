"""How well a plan's latency is predicted, and how long measuring damage takes, for torchvision's networks.

    python -m benchmarks.plan_latency --networks resnet18,resnet50 --shares 0.8,0.6
    python -m benchmarks.plan_latency --networks resnet50 --damage      # seconds of the damage pass

Weights are random, and so are damages where only latency is asked for: what is timed does not depend on them. The
plan of least damage within each share of the original's latency is made, lowered by the same table of costs, and timed
in turns with the original, in ONNX Runtime, one image, one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torchvision
from torch import nn

from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import totals_of
from vfconvert.budget.building import option_table, timed
from vfconvert.budget.candidates import KINDS, families_of
from vfconvert.budget.damage import Harm, spec_with
from vfconvert.budget.knapsack import choose
from vfconvert.budget.options import Subject, measure_options
from vfconvert.budget.table import OptionTable
from vfconvert.lowering.choice import fastest, onnx_bytes, time_files
from vfconvert.lowering.costs import CostTable
from vfconvert.lowering.mock import assigned
from vfconvert.ops.blocks import blocks_of, products
from vfconvert.ops.expand import default_rows
from vfconvert.options import ConversionOptions
from vfconvert.plan_search import search, timed_share
from vfconvert.planning import Plan, Wish, make_plan
from vfconvert.specs import ConvGeometry
from vfconvert.targets import Target


def main() -> None:
    """Parse and measure each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18,resnet50")
    parser.add_argument("--shares", default="0.8,0.6")
    parser.add_argument("--damage", action="store_true")
    parser.add_argument("--images", type=int, default=64, help="of noise, for the damage pass")
    arguments = parser.parse_args()
    for name in arguments.networks.split(","):
        torch.manual_seed(0)
        teacher = getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False)
        example = torch.randn(1, 3, 224, 224)
        network = trace(teacher, torch.randn(2, 3, 224, 224))
        if network is None:
            raise SystemExit("the network cannot be traced")
        layers = profile(teacher, example)
        plan = make_plan(teacher, layers, network.following_norm, Wish(channel=True))
        if arguments.damage:
            damage(name, teacher, network, layers, plan, arguments.images)
        else:
            latency(name, teacher, network, layers, plan, [float(share) for share in arguments.shares.split(",")])


def damage(name: str, teacher: nn.Module, network: Network, layers: Profile, plan: Plan, images: int) -> None:
    """Seconds of the whole pass, and of one choice from its table."""
    before = totals_of(teacher, layers, count_macs(teacher, torch.zeros(1, 3, 224, 224)))
    subject = Subject(teacher=teacher, network=network, layers=layers, plan=plan, before=before, sha256="")
    begun = time.perf_counter()
    table = measure_options(subject, torch.randn(images, 3, 224, 224), seed=0)
    measured = time.perf_counter()
    choose(table, {"params": 0.5 * table.parameters})
    chosen = time.perf_counter()
    options = sum(len(layer.options) for layer in table.layers)
    print(
        f"{name}: {measured - begun:.0f} s for {options} options of {len(table.layers)} layers on {images} images, "
        f"{chosen - measured:.2f} s for a plan",
        flush=True,
    )


def latency(name: str, teacher: nn.Module, network: Network, layers: Profile, plan: Plan, shares: list[float]) -> None:
    """Predicted and measured ratio of latencies, for each share asked for."""
    example, costs = torch.randn(1, 3, 224, 224), CostTable()
    before = totals_of(teacher, layers, count_macs(teacher, example))
    generator = torch.Generator().manual_seed(0)
    harms = {decision.layer: guessed(decision.geometry, generator) for decision in plan.converted}
    file = onnx_bytes(teacher, example)
    if file is None:
        raise SystemExit("the network cannot be timed")
    whole = time_files({"original": file}, example, 1)["original"].median
    begun = time.perf_counter()
    table: OptionTable = timed(option_table(plan, layers, before, harms, "nats", KINDS), teacher, layers, costs, whole)
    print(f"{name}: {len(costs.measured)} layers timed in {time.perf_counter() - begun:.0f} s", flush=True)
    for share in shares:
        wanted = ConversionOptions(model=Path(name), targets=(Target(cost="latency", share=share),))
        subject = Subject(teacher=teacher, network=network, layers=layers, plan=plan, before=before, sha256="")
        searched = search(table, wanted, 0, timed_share(subject, example, costs, 1))
        predicted = searched.point
        student = assigned(teacher, network, searched.plan, seed=1)
        lowered = fastest(student, network, profile(student, example), costs)
        made = onnx_bytes(lowered.model, example)
        if made is None:
            raise SystemExit("the converted network cannot be timed")
        found = time_files({"original": file, "planned": made}, example, 1)
        ratio = found["planned"].median / found["original"].median
        expected = predicted.seconds_share or 0.0
        print(
            f"  {share:.0%} asked: predicted {expected:.3f}, measured {ratio:.3f} ({ratio / expected - 1:+.1%}), "
            f"{predicted.parameters_share:.3f} of the parameters",
            flush=True,
        )


def guessed(geometry: ConvGeometry, generator: torch.Generator) -> tuple[Harm, ...]:
    """The options of a layer with damages that grow as they save more, else at random."""
    found = []
    for family in families_of(geometry):
        for count in family.primaries:
            spec = spec_with(family.spec, geometry, count)
            blocks = blocks_of(geometry, spec, default_rows(geometry, spec).tolist())
            work = products(blocks, spec, geometry.group_inputs, "segments") if blocks else geometry.weight_numbers
            lost = 1 - count / geometry.group_outputs + 0.2 * float(torch.rand((), generator=generator))
            found.append(Harm(kind=family.kind, spec=spec, unexplained=lost, damage=lost, products=work))
    return tuple(found)


if __name__ == "__main__":
    main()
