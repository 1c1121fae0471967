"""The plan under a budget: what every layer could become is measured on the images, then chosen from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vfconvert.analysis.profile import profile
from vfconvert.budget.building import lacking, rescaled, timed
from vfconvert.budget.cache import cache_path
from vfconvert.budget.candidates import KINDS
from vfconvert.budget.frontier import Point
from vfconvert.budget.knapsack import Choice, check_size, choose, least_of, point_of
from vfconvert.budget.options import Subject, measure_options
from vfconvert.budget.table import OptionTable
from vfconvert.budget.targets import allowed_by, limits_of, whole_of
from vfconvert.errors import BudgetError
from vfconvert.lowering.choice import fastest, onnx_bytes, time_files
from vfconvert.lowering.costs import CostTable
from vfconvert.lowering.mock import assigned
from vfconvert.options import ConversionOptions
from vfconvert.planning import Plan
from vfconvert.progress import Progress

_CORRECTIONS = 4  # of the times of layers by that of a whole plan
_NEAR = 0.04  # how near predicted and measured latency are let be
_LEAST_SAVING = 0.01
_STEPS = 6  # of the search for the tightest plan: to 1.5 % of the range


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """A chosen plan, what it should cost and harm, and the limits by cost that it keeps."""

    plan: Plan
    table: OptionTable
    point: Point
    gap: float
    limits: dict[str, float]


def kinds_of(options: ConversionOptions) -> tuple[str, ...]:
    """The kinds of option that are allowed: all of them where neither --spatial nor --channel is given."""
    if not (options.spatial or options.channel):
        return KINDS
    kinds = {"spatial": options.spatial, "lines": options.spatial and options.crops == "lines"}
    kinds |= {"channel": options.channel, "group": options.channel, "both": options.spatial and options.channel}
    return tuple(kind for kind in KINDS if kinds[kind])


def table_of(
    subject: Subject, images: Tensor, options: ConversionOptions, costs: CostTable | None, progress: Progress
) -> OptionTable:
    """The options of every layer, with their times where there is a table of costs to measure into.

    `images` `(N, C, H, W)` are those of the calibration. Raises `BudgetError` where the network cannot be timed.
    """
    cache = options.damage_cache
    if cache is None and options.model.is_file():  # a network in memory has no place of its own
        cache = cache_path(options.model)
    table = measure_options(
        subject,
        images,
        seed=options.seed,
        kinds=kinds_of(options),
        cache=cache,
        keep=not options.dry_run,
        progress=progress,
    )
    if costs is None:
        return table
    example, teacher = images[:1].cpu(), copy.deepcopy(subject.teacher).cpu()
    original = teacher if subject.original in (None, subject.teacher) else copy.deepcopy(subject.original).cpu()
    name = f"{subject.sha256} {tuple(example.shape)}"
    if name not in costs.networks:
        if costs.foreign:
            raise BudgetError(f"the network as a whole is {lacking(costs)}")
        file = onnx_bytes(original, example)
        if file is None:
            raise BudgetError("the original network cannot be timed in ONNX Runtime, so a latency is no target here")
        costs.networks[name] = time_files({"original": file}, example, options.threads)["original"].median
    return timed(table, teacher, subject.layers, costs, costs.networks[name], progress)


def search(
    table: OptionTable,
    options: ConversionOptions,
    original_bytes: int,
    share_of: Callable[[Plan], float | None] | None = None,
) -> Searched:
    """The least harmful plan within the targets. Raises `BudgetError` where there is none.

    `share_of` times a plan as a whole and tells its share of the original's latency (None where it cannot): layers save
    less together than each alone, so their savings are scaled until what is predicted of the plan is what it takes.
    """
    limits = _limits(table, options, original_bytes)
    found = _searched(table, limits)
    for _ in range(_CORRECTIONS if share_of is not None and "latency" in limits else 0):
        predicted = found.point.seconds_share or 1.0
        share = share_of(found.plan) if share_of is not None and found.plan.converted else None
        if share is None or abs(share - predicted) <= _NEAR * predicted or predicted >= 1:
            break
        table = rescaled(table, max(1 - share, _LEAST_SAVING) / (1 - predicted))
        found = _searched(table, limits)
    return found


def timed_share(subject: Subject, example: Tensor, costs: CostTable, threads: int) -> Callable[[Plan], float | None]:
    """Times a plan before it is fitted: its share of the original's latency on `example` `(1, C, H, W)`.

    Times none where the costs are of another machine, whose whole networks cannot be timed here.
    """
    teacher, network = copy.deepcopy(subject.teacher).cpu(), subject.network
    before = onnx_bytes(teacher if subject.original is None else copy.deepcopy(subject.original).cpu(), example)

    def share_of(plan: Plan) -> float | None:
        if network is None or before is None or costs.foreign:
            return None
        student = assigned(teacher, network, plan)
        lowered = fastest(student, network, profile(student, example), costs)
        after = onnx_bytes(lowered.model, example)
        if after is None:
            return None
        found = time_files({"before": before, "after": after}, example, threads)
        return found["after"].median / found["before"].median

    return share_of


def tightest(
    table: OptionTable,
    options: ConversionOptions,
    original_bytes: int,
    drop_of: Callable[[Plan], float],
) -> Searched:
    """The smallest plan that loses at most `--max-drop` points, by halving the range of one cost.

    The cost is that of the first target, else "params"; all targets are kept too. `drop_of` converts by a plan and
    tells the points that are lost. Raises `BudgetError` where no plan loses as little.
    """
    allowed = options.max_drop if options.max_drop is not None else 0.0
    limits = _limits(table, options, original_bytes)
    cost = next(iter(limits), "params")
    whole = whole_of(table, cost)
    if whole is None:
        raise BudgetError(f"{cost}: nothing was measured; drop --no-measure, or give --costs")
    low, high = least_of(table, cost), min(whole, limits.get(cost, whole))
    if high < low:
        choose(table, limits)  # says what can be reached
    best: Searched | None = None
    lowest = float("inf")
    for step in range(_STEPS + 1):
        limit = low if step == 0 else (low + high) / 2
        try:
            found = _searched(table, {**limits, cost: limit * (1 + 1e-9)})
        except BudgetError:  # too tight beside the other targets
            low = limit
            continue
        drop = drop_of(found.plan) if found.plan.converted else 0.0
        lowest = min(lowest, drop)
        if drop <= allowed and found.plan.converted:
            best, high = found, limit
            if step == 0:
                break
        else:
            low = limit
    if best is None and lowest == float("inf"):
        choose(table, limits)  # says what cannot be kept
    if best is None:
        raise BudgetError(
            f"--max-drop {allowed:g}: no plan that was tried loses as little (the best lost {lowest:.2f} points); "
            "allow more, or give more --calibration-images"
        )
    return best


def _limits(table: OptionTable, options: ConversionOptions, original_bytes: int) -> dict[str, float]:
    """As `limits_of` has them. Sizes are checked here, since they are limits on parameters from here on."""
    for target in options.targets:
        if target.cost == "size":
            check_size(table, allowed_by(table, target, original_bytes), original_bytes)
    return limits_of(table, options.targets, original_bytes)


def _searched(table: OptionTable, limits: dict[str, float]) -> Searched:
    choice: Choice = choose(table, limits)
    plan = table.plan(choice.chosen)
    return Searched(plan=plan, table=table, point=point_of(table, choice.chosen), gap=choice.gap, limits=dict(limits))
