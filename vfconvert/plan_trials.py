"""Plans of fewer kinds of filter, fitted and measured beside the one that is predicted to be the least harmful.

Predicted damage adds up what layers harm alone; a conversion of all layers alike can be better than it says. Which of
a few unlike plans within the same limits is best, a fit of each tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice

import torch
from torch import Tensor, nn

from vfconvert.budget.candidates import KINDS
from vfconvert.budget.frontier import Point
from vfconvert.budget.knapsack import choose, point_of
from vfconvert.budget.table import KEEP, OptionTable
from vfconvert.errors import BudgetError, FitError
from vfconvert.plan_search import Searched
from vfconvert.planning import Plan
from vfconvert.reporting.describe import judging_batch
from vfconvert.tasks.structure import distillation_loss, sizes_of

_FAR = 1.5  # times the least predicted damage: beyond that a fit would hardly say otherwise
_NEAR = 0.04  # by what share a measured latency may be above its limit: so much it varies


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A plan that was fitted: its kinds of filter, what was predicted of it, and its distance from the original."""

    kinds: tuple[str, ...]
    point: Point
    loss: float


def refined(
    found: Searched,
    tries: int,
    loss_of: Callable[[Plan], float],
    share_of: Callable[[Plan], float | None] | None = None,
) -> tuple[Searched, tuple[Trial, ...]]:
    """The best by `loss_of` of the plan found and of `tries` others within its limits, and all that were tried.

    `loss_of` converts by a plan and tells how far it is from the original; of equals the first counts, and another plan
    that cannot be fitted does not. Where there is no other, none is tried. `share_of` times a plan as a whole, where a
    latency is limited.
    """
    others = (chosen for chosen in rivals(found.table, found.limits) if _quick(found, chosen, share_of))
    picked = list(islice(others, tries))
    tried: list[Trial] = []
    for chosen in (found.point.chosen, *picked) if picked else ():
        try:
            loss = loss_of(found.table.plan(chosen))
        except FitError:
            if chosen == found.point.chosen:
                raise
            continue
        tried.append(Trial(kinds=_kinds(found.table, chosen), point=point_of(found.table, chosen), loss=loss))
    if not tried:
        return found, ()
    best = min(tried, key=lambda trial: (math.isnan(trial.loss), trial.loss)).point
    least = (1 - found.gap) * found.point.damage
    gap = 1 - least / best.damage if best.damage > 0 else found.gap
    return replace(found, plan=found.table.plan(best.chosen), point=best, gap=gap), tuple(tried)


def rivals(table: OptionTable, limits: Mapping[str, float]) -> Iterator[tuple[int, ...]]:
    """The least harmful choices of fewer kinds within the limits, each once: of one kind first, then of two, and so on.

    Among as many kinds the order is that of predicted damage. The choice of all kinds is not among them, nor are those
    predicted to harm half as much again.
    """
    present = [kind for kind in KINDS if any(option.kind == kind for layer in table.layers for option in layer.options)]
    best = choose(table, limits).chosen
    seen, most = {best}, _FAR * point_of(table, best).damage
    for size in range(1, len(present)):
        made: dict[tuple[int, ...], float] = {}
        for kinds in combinations(present, size):
            chosen = _within(table, limits, kinds)
            damage = point_of(table, chosen).damage if chosen is not None else 0.0
            if chosen is not None and chosen not in seen and damage <= most:
                made[chosen] = damage
        yield from sorted(made, key=lambda chosen: made[chosen])
        seen |= set(made)


def _within(table: OptionTable, limits: Mapping[str, float], kinds: Collection[str]) -> tuple[int, ...] | None:
    """The least harmful choice of these kinds; None where they cannot keep the limits."""
    places = [[i for i, o in enumerate(layer.options) if o.kind in (KEEP, *kinds)] for layer in table.layers]
    layers = [
        replace(layer, options=tuple(layer.options[i] for i in found))
        for layer, found in zip(table.layers, places, strict=True)
    ]
    try:
        chosen = choose(replace(table, layers=tuple(layers)), limits).chosen
    except BudgetError:
        return None
    return tuple(found[index] for found, index in zip(places, chosen, strict=True))


def _kinds(table: OptionTable, chosen: tuple[int, ...]) -> tuple[str, ...]:
    used = {layer.options[index].kind for layer, index in zip(table.layers, chosen, strict=True)}
    return tuple(kind for kind in KINDS if kind in used)


def _quick(found: Searched, chosen: tuple[int, ...], share_of: Callable[[Plan], float | None] | None) -> bool:
    whole = found.table.seconds
    if share_of is None or whole is None or "latency" not in found.limits:
        return True
    share = share_of(found.table.plan(chosen))
    return share is None or share <= found.limits["latency"] / whole * (1 + _NEAR)


@torch.no_grad()
def distance(teacher: nn.Module, student: nn.Module, images: Tensor) -> float:
    """Mean distance of the outputs for `images` `(N, C, H, W)`: of logits the divergence in nats.

    Of all else the squared error in shares of the variance of the teacher's output. Both networks in evaluation mode,
    on one device. Raises `VaryingOutputError` where outputs have no fixed structure.
    """
    device = next(teacher.parameters()).device
    total, sizes = 0.0, None
    size = judging_batch(images)
    for start in range(0, len(images), size):
        batch = images[start : start + size].to(device)
        wanted, got = teacher(batch.clone()), student(batch.clone())
        sizes = sizes_of(wanted) if sizes is None else sizes
        total += float(distillation_loss(got, wanted, 1.0, sizes=sizes)) * len(batch)
    return total / len(images)
