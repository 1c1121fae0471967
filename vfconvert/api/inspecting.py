"""Looking before: what could become of a network, and plans chosen from that or stated; nothing is converted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vfconvert.api.asking import Data, Model, asked
from vfconvert.files import atomic_path
from vfconvert.inspection import Inspected, chosen, inspected
from vfconvert.keyword_values import read_value
from vfconvert.keywords import INSPECT, PLAN, read_targets
from vfconvert.network_plan import NetworkPlan
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override
from vfconvert.pipeline import converted
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.frontier_plot import draw_frontier
from vfconvert.reporting.inspect_json import inspect_to_json
from vfconvert.reporting.inspect_report import InspectReport
from vfconvert.reporting.units import metric
from vfconvert.targets import Target


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Inspection:
    """What each layer of a network could become, with what it would save and harm: `report`, and plans from it."""

    report: InspectReport
    _found: Inspected
    _options: ConversionOptions

    def __repr__(self) -> str:
        count = len(self.report.layers) + len(self.report.kept)
        return (
            f"Inspection({metric(self.report.parameters)} parameters, "
            f"{len(self.report.layers)} of {count} convolutions have options)"
        )

    def plan(self, targets: Mapping[str, str | float] | Sequence[Target]) -> NetworkPlan:
        """The least harmful plan within limits like `{"params": "50%"}`, in a moment: nothing is measured again.

        It is the plan that `convert` chooses by the same targets and images. A latency as a target needs
        `inspect(measure=True)`. Raises `BudgetError` where no plan is within them, `NothingEligibleError` where none
        converts anything, `TypeError` and `ValueError` for limits that cannot be read.
        """
        limits = read_targets(targets, "plan(): targets")
        if not limits:
            raise ValueError('plan(): targets: got none, expected one or more, like {"params": "50%"}')
        return chosen(self._found, limits, self._options)

    def to_json(self) -> str:
        """The report as the command's `--json` prints it."""
        return inspect_to_json(self.report)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json`. Raises `UnwritableOutputError`."""
        with atomic_path(read_value("save(): path", "Path", path)) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8", errors="backslashreplace")

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of damage against each share of the original, .svg or .png.

        Raises `UnwritableOutputError`, also for another suffix, and `MissingPackageError` without `vfconvert[plot]`.
        """
        draw_frontier(self.report, read_value("draw(): path", "Path", path))


def inspect(
    model: Model,
    *,
    spatial: bool = False,
    channel: bool = False,
    data: Data = None,
    measure: bool = False,
    progress: Progress = no_progress,
    **settings: Any,
) -> Inspection:
    """Measure what each layer could become, what that saves and what it harms. Nothing is converted.

    `model`, `data` and `progress` are as in `convert`; without `spatial` and `channel` every kind of filter is tried.
    `measure` times every option too, for the frontier by latency, which takes minutes. `settings` are further keywords
    of `convert` that say how layers are selected, images read, networks loaded and timed.

    Raises `TypeError`, `ValueError` and the errors of `vfconvert.errors` as `convert` does.
    """
    stated = {"spatial": spatial, "channel": channel, "measure": measure, **settings}
    # A loss that is allowed says that the options are to be searched, and of no loss nothing is held back.
    found = asked(INSPECT, model, stated, data=data, progress=progress, fixed={"max_drop": 0.0})
    seen = inspected(found.options, progress, found.given)
    return Inspection(report=seen.report, _found=seen, _options=found.options)


def plan(
    model: Model,
    *,
    spatial: bool = False,
    channel: bool = False,
    targets: Mapping[str, str | float] | Sequence[Target] = (),
    layers: Mapping[str, str] | Sequence[Override] = (),
    data: Data = None,
    progress: Progress = no_progress,
    **settings: Any,
) -> NetworkPlan:
    """Decide what would become of every convolution, and convert nothing: what `--dry-run` does.

    The arguments are those of `convert`, but for those that fit and train. With `targets` the options of every layer
    are measured on `data`; for several plans of one network `inspect` measures once. With `plan=`, a plan that was
    saved is read for this network.

    Raises `TypeError`, `ValueError` and the errors of `vfconvert.errors` as `convert` does.
    """
    stated = {"spatial": spatial, "channel": channel, **settings}
    found = asked(
        PLAN, model, stated, targets=targets, layers=layers, data=data, progress=progress, fixed={"dry_run": True}
    )
    done = converted(found.options, progress, given=found.given)
    if done is None:
        raise ValueError("plan() works in one process")
    return done.plan
