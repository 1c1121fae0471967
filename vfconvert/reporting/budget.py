"""From a searched plan to what the report says of it."""

from __future__ import annotations

from collections.abc import Iterable

from vfconvert.analysis.totals import Totals
from vfconvert.budget.frontier import Point
from vfconvert.budget.table import OptionTable
from vfconvert.budget.targets import file_bytes
from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import ArtefactReport, BudgetReport, TargetReport, TrialReport
from vfconvert.targets import Target


def budget_report(
    targets: Iterable[Target],
    allowed: Iterable[float],
    table: OptionTable,
    point: Point,
    gap: float,
    max_drop: float | None,
    trials: Iterable[TrialReport],
    after: Totals,
    latency: LatencyReport | None,
    file: ArtefactReport | None,
) -> BudgetReport:
    """Targets with what was predicted of the plan and what the written file (None: nothing was written) has."""
    written = file is not None
    predicted = {
        "params": float(point.parameters),
        "macs": float(point.macs),
        "size": file_bytes(table, point.parameters),
        "latency": point.seconds,
    }
    reached = {
        "params": float(after.numbers.parameters) if written else None,
        "macs": float(after.macs_executed) if written else None,
        "size": float(file.bytes) if file is not None else None,
        "latency": latency.after if latency is not None else None,
    }
    return BudgetReport(
        targets=tuple(
            TargetReport(
                target=str(target),
                allowed=limit,
                predicted=predicted[target.cost] or 0.0,
                reached=reached[target.cost],
            )
            for target, limit in zip(targets, allowed, strict=True)
        ),
        damage=point.damage,
        measure=table.measure,
        gap=gap,
        max_drop=max_drop,
        trials=tuple(trials),
    )


def missed(found: BudgetReport | None) -> tuple[str, ...]:
    """A sentence for each target that the written file does not keep."""
    rows = found.targets if found is not None else ()
    return tuple(f"target {row.target} is missed; give a lower one" for row in rows if not row.kept)


def few_tried(found: BudgetReport | None, wanted: int) -> tuple[str, ...]:
    """A sentence where `--refine` found fewer plans to compare than it was asked for."""
    others = max(len(found.trials) - 1, 0) if found is not None else wanted
    if others >= wanted:
        return ()
    return (f"--refine {wanted} found {others} other plan(s) within the targets and near the best prediction",)


def damages(table: OptionTable, point: Point) -> dict[str, float]:
    """What the chosen plan is predicted to harm at each layer that had a choice."""
    options = zip(table.layers, point.chosen, strict=True)
    return {layer.layer: layer.options[index].damage for layer, index in options}
