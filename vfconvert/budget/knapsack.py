"""The choice of one option for every layer that does the least harm under all limits: a multiple-choice knapsack.

Solved exactly by branch and bound (HiGHS, in `scipy.optimize.milp`). Costs of a plan are the original network's less
what its options save, so layers without a choice count as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from vfconvert.budget.frontier import Frontier, Point
from vfconvert.budget.muted import no_output
from vfconvert.budget.table import LayerOptions, Option, OptionTable
from vfconvert.budget.targets import NUMBER_BYTES, file_bytes, whole_of
from vfconvert.errors import BudgetError
from vfconvert.targets import amount_text

_GAP = 1e-4  # of the damage: options differ by more
_MOST_NODES = 100_000
_POINTS = 16
_NEVER = ("depthwise",)  # codes of kept layers that no option converts
_LARGEST = 1e3  # number in a constraint; limits are kept to 1e-6, which is then less than one parameter


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An option for every layer of the table, and by how much (a share) the damage might be lower at best."""

    chosen: tuple[int, ...]
    gap: float


def cost_of(option: Option, cost: str) -> float:
    """What an option costs of "params", "macs" or "latency"."""
    if cost == "latency":
        if option.seconds is None:
            raise BudgetError("a latency is asked for, and this option was not measured; drop --no-measure")
        return option.seconds
    return float(option.parameters if cost == "params" else option.macs)


def choose(table: OptionTable, limits: Mapping[str, float]) -> Choice:
    """The least damage within `limits` by cost (see `vfconvert.budget.targets`).

    Raises `BudgetError` where no plan keeps them, with what is the best that can be reached.
    """
    costs = tuple(limits)
    candidates = [_undominated(layer, costs) for layer in table.layers]
    spare = {cost: limit - _fixed(table, cost) for cost, limit in limits.items()}
    _check_reachable(table, limits, candidates)
    offered = [layer.options[index] for layer, found in zip(table.layers, candidates, strict=True) for index in found]
    damages = np.array([option.damage for option in offered])
    scale = max(float(damages.max(initial=0.0)), 1e-30)
    owner = np.repeat(np.arange(len(candidates)), [len(found) for found in candidates])
    columns = np.arange(len(owner))
    constraints = [LinearConstraint(csr_matrix((np.ones(len(owner)), (owner, columns))), 1, 1)]
    for cost in costs:
        row = np.array([cost_of(option, cost) for option in offered])
        size = max(float(row.max(initial=0.0)), 1e-30) / _LARGEST
        constraints.append(LinearConstraint(csr_matrix(row[None] / size), -np.inf, spare[cost] / size))
    with no_output():  # HiGHS writes of solutions that it polishes
        solved = milp(
            damages / scale,
            constraints=constraints,
            integrality=np.ones(len(owner)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": _GAP, "node_limit": _MOST_NODES},
        )
    if solved.x is None:
        raise BudgetError(f"no plan keeps {_said(limits)} together; give more room to one of them")
    picked = solved.x > 0.5
    chosen = [int(np.flatnonzero(picked[owner == number])[0]) for number in range(len(candidates))]
    gap = float(solved.mip_gap) if solved.mip_gap is not None else 0.0
    return Choice(chosen=tuple(found[at] for found, at in zip(candidates, chosen, strict=True)), gap=gap)


def point_of(table: OptionTable, chosen: Sequence[int]) -> Point:
    """What the whole network has under a choice."""
    options = [layer.options[index] for layer, index in zip(table.layers, chosen, strict=True)]
    timed = table.seconds is not None and all(option.seconds is not None for option in options)
    totals = {
        cost: _fixed(table, cost) + sum(cost_of(option, cost) for option in options)
        for cost in (("params", "macs", "latency") if timed else ("params", "macs"))
    }
    seconds = totals.get("latency")
    return Point(
        chosen=tuple(chosen),
        damage=sum(option.damage for option in options),
        parameters=round(totals["params"]),
        macs=round(totals["macs"]),
        seconds=seconds,
        parameters_share=totals["params"] / table.parameters,
        macs_share=totals["macs"] / table.macs,
        seconds_share=seconds / table.seconds if seconds is not None and table.seconds else None,
    )


def frontier_of(table: OptionTable, cost: str, points: int = _POINTS) -> Frontier:
    """Least damage from the whole network down to the least that the options reach, in equal steps of one cost."""
    whole = _fixed(table, cost) + sum(cost_of(layer.options[0], cost) for layer in table.layers)
    least = least_of(table, cost)
    found: dict[tuple[int, ...], None] = {}
    for step in range(points + 1):
        limit = whole + (least - whole) * step / points
        found[choose(table, {cost: limit * (1 + 1e-9)}).chosen] = None
    return Frontier(cost=cost, points=tuple(point_of(table, chosen) for chosen in found))


def least_of(table: OptionTable, cost: str) -> float:
    """The least that the whole network can have of a cost, whatever it harms."""
    return _fixed(table, cost) + sum(min(cost_of(o, cost) for o in layer.options) for layer in table.layers)


def uniform(table: OptionTable, kind: str) -> tuple[int, ...]:
    """Every layer as `kind` with the fewest primaries, the least harmful of those; kept where it has none."""
    chosen = []
    for layer in table.layers:
        least = min((o.parameters for o in layer.options if o.kind == kind), default=None)
        same = [i for i, o in enumerate(layer.options) if o.kind == kind and o.parameters == least]
        chosen.append(min(same, key=lambda i: layer.options[i].damage, default=0))
    return tuple(chosen)


def _fixed(table: OptionTable, cost: str) -> float:
    """What layers without a choice, and all else, cost."""
    whole = whole_of(table, cost)
    if whole is None:
        raise BudgetError("a latency is asked for, and nothing was measured; drop --no-measure")
    return whole - sum(cost_of(layer.options[0], cost) for layer in table.layers)


def _undominated(layer: LayerOptions, costs: Sequence[str]) -> list[int]:
    """Options than which no other is as cheap in every way and as harmless; of equals the first."""
    found: list[int] = []
    values = [(option.damage, *(cost_of(option, cost) for cost in costs)) for option in layer.options]
    for index, mine in enumerate(values):
        better = (
            all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or place < index)
            for place, other in enumerate(values)
            if place != index
        )
        if not any(better):
            found.append(index)
    return found


def _check_reachable(table: OptionTable, limits: Mapping[str, float], candidates: Sequence[Sequence[int]]) -> None:
    for cost, limit in limits.items():
        least = _fixed(table, cost) + sum(
            min(cost_of(layer.options[i], cost) for i in found)
            for layer, found in zip(table.layers, candidates, strict=True)
        )
        whole = whole_of(table, cost) or 1.0
        if least > limit:
            raise _out_of_reach(table, cost, limit, least, whole)


def check_size(table: OptionTable, limit: float, original_bytes: int) -> None:
    """Raise `BudgetError` where no plan makes a file of at most `limit` bytes."""
    least = file_bytes(table, least_of(table, "params"))
    if least > limit:
        raise _out_of_reach(table, "size", limit, least, original_bytes)


def _out_of_reach(table: OptionTable, cost: str, limit: float, least: float, whole: float) -> BudgetError:
    gap = (least - limit) / NUMBER_BYTES if cost == "size" else least - limit
    return BudgetError(
        f"{cost}: {amount_text(cost, limit)} ({limit / whole:.1%} of the original) is wanted, and "
        f"{amount_text(cost, least)} ({least / whole:.1%}) is the least that can be reached; "
        f"{_way_on(table, 'params' if cost == 'size' else cost, gap)}"
    )


def _way_on(table: OptionTable, cost: str, gap: float) -> str:
    """What to do where `gap` of a cost is left: convert kept layers where that could close it."""
    kept = sorted(
        (keep for keep in table.kept if keep.code not in _NEVER), key=lambda keep: -keep.geometry.weight_numbers
    )
    # Of MACs and time only the sum of all that is no choice is known: kept layers have that much at most.
    most = float(sum(keep.geometry.weight_numbers for keep in kept)) if cost == "params" else _fixed(table, cost)
    if kept and most * (1 - _smallest_share(table, cost)) >= gap:
        named = ", ".join(f"{keep.layer} ({keep.code}, {keep.geometry.weight_numbers:,} weights)" for keep in kept[:3])
        return f"kept layers stand in the way: {named}; convert these too, or give a higher limit"
    if cost == "latency":
        return "on this machine ordinary convolutions are the fastest form of the rest; give a higher limit"
    return "these filters allow no less here; give a higher limit"


def _smallest_share(table: OptionTable, cost: str) -> float:
    """Of a cost, to which the option that saves most brings its layer; kept layers will hardly get below that.

    0 where no layer has a choice: nothing is known then.
    """
    pairs = [(cost_of(o, cost), cost_of(layer.options[0], cost)) for layer in table.layers for o in layer.options]
    return min((now / was for now, was in pairs if was > 0), default=0.0)


def _said(limits: Mapping[str, float]) -> str:
    return " and ".join(f"{cost} of {amount_text(cost, limit)}" for cost, limit in limits.items())
