"""The plan that keeps the targets of a conversion, by prediction alone or with plans that are fitted and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from vfconvert.errors import BudgetError
from vfconvert.fitting.sweep import Fitted
from vfconvert.inputs import Images
from vfconvert.lowering.costs import CostTable
from vfconvert.options import ConversionOptions
from vfconvert.plan_search import Searched, search, table_of, tightest, timed_share
from vfconvert.plan_trials import distance, refined
from vfconvert.planning import Plan, check_something_converted
from vfconvert.preparation import Prepared
from vfconvert.progress import Progress
from vfconvert.reporting.report import TrialReport
from vfconvert.tasks.structure import VaryingOutputError


class Fit(Protocol):
    """Makes the student of a plan: with `alone` by the closed-form fit only."""

    def __call__(self, plan: Plan, images: Images, *, alone: bool = False) -> Fitted:
        """Raises the errors of the fit."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The plan, those that were tried beside it, and the student where the plan was fitted to the end.

    Images held out before number `judged_from` have helped to choose.
    """

    searched: Searched
    trials: tuple[TrialReport, ...] = ()
    fitted: Fitted | None = None
    judged_from: int = 0


def find_plan(
    prepared: Prepared,
    options: ConversionOptions,
    images: Images,
    costs: CostTable,
    fit: Fit,
    points_lost: Callable[[nn.Module, slice], float],
    progress: Progress,
) -> Found:
    """Choose by the options' targets, `--max-drop` and `--refine`; `points_lost` is of the held-out images of a slice.

    The costs are written where they are kept and have grown. Raises `BudgetError`, and the errors of the fit.
    """
    size = prepared.loaded.size_bytes
    chosen_by = 0
    if options.max_drop is not None or options.refine:  # before any work
        chosen_by = images.half("--max-drop" if options.max_drop is not None else "--refine")
    timed = any(target.cost == "latency" for target in options.targets)
    known = costs.known
    table = table_of(prepared.subject, images.calibration, options, costs if timed else None, progress)
    if options.costs is not None and costs.known > known and not options.dry_run:
        costs.write(options.costs)
    if options.max_drop is not None:
        tried: dict[Plan, Fitted] = {}

        def drop_of(plan: Plan) -> float:
            tried.clear()  # the last is the best, or is made again
            tried[plan] = fit(plan, images)
            return points_lost(tried[plan].model, slice(0, chosen_by))

        searched = tightest(table, options, size, drop_of)
        return Found(searched=searched, fitted=tried.get(searched.plan), judged_from=chosen_by)
    whole = (prepared.subject, prepared.example.cpu(), costs, options.threads)
    share_of = timed_share(*whole) if timed else None
    searched = search(table, options, size, share_of)
    check_something_converted(searched.plan)
    if not options.refine:
        return Found(searched=searched)
    chosen = images.judging[:chosen_by]

    def loss_of(plan: Plan) -> float:
        return distance(prepared.teacher, fit(plan, images, alone=True).model, chosen)

    try:
        distance(prepared.teacher, prepared.teacher, chosen)
        best, trials = refined(searched, options.refine, loss_of, share_of)
    except VaryingOutputError as error:
        raise BudgetError("--refine compares outputs, and those of this network vary in number; drop it") from error
    rows = [
        TrialReport(kinds=each.kinds, damage=each.point.damage, loss=each.loss, chosen=each.point == best.point)
        for each in trials
    ]
    return Found(searched=best, trials=tuple(rows), judged_from=chosen_by if trials else 0)
