"""Whether predicted damage ranks plans, and whether a planned network is better than a uniform one.

    python -m benchmarks.plans DATA rank --network resnet20 --plans 30      # Spearman, random plans of one size
    python -m benchmarks.plans DATA rank --network resnet56 --plans 10
    python -m benchmarks.plans DATA uniform --network resnet20              # equal parameters, and equal executed MACs
    python -m benchmarks.plans DATA uniform --network resnet20 --refine 3   # and the best of that plan and three others

DATA is the folder of `benchmarks.accuracy`. The fit alone, without training; judged on 4,000 training images that no
draw contains, or on the test set by `--on test`. `--cache FOLDER` keeps the measured damage.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.accuracy import Cifar
from benchmarks.subjects import Bench, Measured, bench_of
from vfconvert.budget.knapsack import choose, point_of
from vfconvert.budget.table import OptionTable
from vfconvert.ops.crops import crops_and_levels, full_crop
from vfconvert.plan_search import Searched
from vfconvert.plan_trials import distance, refined
from vfconvert.planning import Convert, Plan
from vfconvert.specs import ConvGeometry, VersatileSpec

CHOOSING = 1000  # images, of those that draws are from, on which plans are compared


def main() -> None:
    """Parse and run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=["rank", "uniform"])
    parser.add_argument("--network", default="resnet20", choices=["resnet20", "resnet56"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.6, help="of the parameters, for random plans")
    parser.add_argument("--shares", default="0.7,0.5,0.35", help="of the parameters, for uniform conversions")
    parser.add_argument("--kinds", default="spatial,lines,channel,both")
    parser.add_argument("--on", default="held-out", choices=["held-out", "test"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--refine", type=int, default=0, help="plans fitted beside the planned one; the nearest counts")
    parser.add_argument("--cost", default="params,macs", help="of which a plan has as much as the uniform one")
    arguments = parser.parse_args()
    bench = bench_of(arguments.data, arguments.network, arguments.seed, arguments.on, cache=arguments.cache)
    before = bench.measure(bench.teacher)
    print(f"{arguments.network}, seed {arguments.seed}, {arguments.on}: {before.accuracy:.2f} %", flush=True)
    if arguments.what == "rank":
        rank(bench, arguments.plans, arguments.share)
    else:
        shares = [float(share) for share in arguments.shares.split(",")]
        cifar = Cifar(arguments.data / "cifar10-jpeg.zip")
        choosing = cifar.calibration(CHOOSING, arguments.seed + 1000) if arguments.refine else None
        compare_uniform(
            bench, arguments.kinds.split(","), shares, arguments.cost.split(","), arguments.refine, choosing
        )


def rank(bench: Bench, count: int, share: float) -> None:
    """Fit random plans within 2 % of one size and correlate what was predicted with what is left."""
    generator = np.random.default_rng(bench.seed)
    damages, residuals, losses = [], [], []
    for number in range(count):
        chosen = random_choice(bench.table, share, generator)
        point = point_of(bench.table, chosen)
        options = [layer.options[i] for layer, i in zip(bench.table.layers, chosen, strict=True)]
        found = bench.measure(bench.convert(bench.table.plan(chosen)))
        damages.append(point.damage)
        residuals.append(sum(option.unexplained for option in options))
        losses.append(-found.accuracy)
        print(
            f"  plan {number}: {found.parameters:.3f} of the parameters, damage {point.damage:.4f}, "
            f"residuals {residuals[-1]:.3f}, {found.accuracy:.2f} %",
            flush=True,
        )
    by_damage, by_residual = (spearmanr(found, losses).statistic for found in (damages, residuals))
    print(f"Spearman of damage {by_damage:.3f}, of the unweighted residual {by_residual:.3f}, {count} plans")


def random_choice(table: OptionTable, share: float, generator: np.random.Generator) -> tuple[int, ...]:
    """Options drawn at random, layers then re-drawn until the parameters are within 2 % of `share`."""
    wanted = share * table.parameters
    chosen = [int(generator.integers(len(layer.options))) for layer in table.layers]
    for _ in range(100_000):
        now = point_of(table, chosen).parameters
        if abs(now - wanted) <= 0.02 * wanted:
            return tuple(chosen)
        at = int(generator.integers(len(chosen)))
        new = [*chosen[:at], int(generator.integers(len(table.layers[at].options))), *chosen[at + 1 :]]
        if abs(point_of(table, new).parameters - wanted) < abs(now - wanted):
            chosen = new
    raise SystemExit(f"no random plan of {share:.0%} of the parameters")


def compare_uniform(
    bench: Bench, kinds: list[str], shares: list[float], costs: list[str], tries: int, choosing: Tensor | None
) -> None:
    """Uniform conversions at each share, and plans of the same parameters and of the same executed MACs."""
    for share in shares:
        for kind in kinds:
            plan = uniform_plan(bench.table, kind, share)
            if plan is None:
                continue
            found = bench.measure(bench.convert(plan))
            _print(f"{kind} at {share:.0%}", found)
            limits = {"params": found.parameters * bench.table.parameters, "macs": found.macs * bench.table.macs}
            for cost in costs:
                _planned(bench, {cost: limits[cost]}, tries, choosing)


def _planned(bench: Bench, limits: dict[str, float], tries: int, choosing: Tensor | None) -> None:
    """Print what the plan within the limits has, and with `tries` what the one has that `--refine` takes."""
    choice = choose(bench.table, limits)
    plan = bench.table.plan(choice.chosen)
    fitted: dict[Plan, nn.Module] = {plan: bench.convert(plan)}
    _print(f"  planned, the same {', '.join(limits)}", bench.measure(fitted[plan]))
    if choosing is None:
        return

    def loss_of(plan: Plan) -> float:
        if plan not in fitted:
            fitted[plan] = bench.convert(plan)
        return distance(bench.teacher, fitted[plan], choosing)

    found = Searched(
        plan=plan, table=bench.table, point=point_of(bench.table, choice.chosen), gap=choice.gap, limits=limits
    )
    best, trials = refined(found, tries, loss_of)
    for trial in trials:
        print(f"    {', '.join(trial.kinds)}: predicted {trial.point.damage:.4f}, found {trial.loss:.4f}", flush=True)
    _print("  refined", bench.measure(fitted[best.plan]))


def uniform_plan(table: OptionTable, kind: str, share: float) -> Plan | None:
    """Every layer alike, with `share` of the outputs as primaries; None where a primary serves too few outputs."""
    whole = table.plan((0,) * len(table.layers))
    layers = {layer.layer: layer for layer in table.layers}
    decisions = []
    for decision in whole.decisions:
        layer = layers.get(decision.layer)
        if layer is None:
            decisions.append(decision)
            continue
        spec = uniform_spec(layer.geometry, kind, share)
        if spec is None:
            return None
        decisions.append(Convert(layer=layer.layer, geometry=layer.geometry, spec=spec, norm=layer.norm))
    return Plan(decisions=tuple(decisions))


def uniform_spec(geometry: ConvGeometry, kind: str, share: float) -> VersatileSpec | None:
    """The kind's spec with so many primaries: two windows by a quarter of the channels, or three where share asks."""
    crops, levels = full_crop(geometry.kernel_size)
    if kind != "channel":
        crops, levels = crops_and_levels(geometry.kernel_size, "lines" if kind == "lines" else "squares")
    windows = {"channel": 2 if share >= 0.5 else 3, "both": 2}.get(kind, 1)
    spec = VersatileSpec(
        crops=crops,
        levels=levels,
        windows=windows,
        channel_stride=geometry.group_inputs // 4 if windows > 1 else 0,
    )
    primaries = round(share * geometry.group_outputs)
    if primaries < spec.fewest_primaries(geometry):
        return None if share < 0.5 else spec
    return dataclasses.replace(spec, group_primaries=primaries, whole_window=windows > 1)


def _print(what: str, found: Measured) -> None:
    print(
        f"{what}: {found.accuracy:.2f} %, {found.parameters:.3f} of the parameters, {found.macs:.3f} of the MACs",
        flush=True,
    )


if __name__ == "__main__":
    main()
