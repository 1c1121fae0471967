"""What could become of a network: every option of every layer, and the frontier of what can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from vfconvert.budget.candidates import KINDS
from vfconvert.budget.frontier import Point
from vfconvert.budget.knapsack import frontier_of, point_of, uniform
from vfconvert.budget.table import OptionTable
from vfconvert.errors import BudgetError
from vfconvert.inputs import images_of
from vfconvert.lowering.costs import CostTable
from vfconvert.network_plan import NetworkPlan
from vfconvert.nn.flattened import flattened_convs
from vfconvert.nn.several_inputs import shapes_of
from vfconvert.options import ConversionOptions
from vfconvert.outputs import check_cache
from vfconvert.plan_search import search, table_of, timed_share
from vfconvert.planning import Plan, check_something_converted
from vfconvert.preparation import Clock, Given, Prepared, prepare
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.cautions import linears_unknown
from vfconvert.reporting.describe import layer_rows, linear_rows
from vfconvert.reporting.inspect_report import InspectReport
from vfconvert.reporting.report import FileReport
from vfconvert.shortages import shortages_named
from vfconvert.targets import Target
from vfconvert.version import versions_of

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "onnxruntime")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """The report, and what a plan is chosen from; `costs` where options were timed."""

    report: InspectReport
    table: OptionTable
    prepared: Prepared
    costs: CostTable | None


def inspect(options: ConversionOptions, progress: Progress = no_progress) -> InspectReport:
    """Measure the options of every layer, with times where `options.measure` asks for them.

    Raises the errors of `vfconvert.errors`.
    """
    return inspected(options, progress).report


@shortages_named()
def inspected(options: ConversionOptions, progress: Progress = no_progress, given: Given | None = None) -> Inspected:
    """Do what `inspect` does, with all that was measured, of a file or of what is given in its place."""
    check_cache(options)
    clock = Clock()
    costs = CostTable.open(options.costs, options.threads) if options.measure else None
    known = costs.known if costs is not None else 0
    prepared = prepare(options, clock, given)
    with clock.stage("images"):
        macs = prepared.before.macs_executed if prepared.network is None else 0
        images = images_of(prepared.source, options, prepared.teacher, progress, macs)
    with clock.stage("measure options"):
        table = table_of(prepared.subject, images.calibration, options, costs, progress)
    if costs is not None and options.costs is not None and costs.known > known:
        costs.write(options.costs)
    with clock.stage("frontier"):
        kinds = ("params", "macs", "latency") if table.seconds is not None else ("params", "macs")
        frontiers = tuple(frontier_of(table, cost) for cost in kinds)
    plan = Plan(decisions=table.kept)
    report = InspectReport(
        command=options.command,
        versions=versions_of(_PACKAGES),
        seed=options.seed,
        device=str(prepared.device),
        input=FileReport(
            path=str(prepared.loaded.path), bytes=prepared.loaded.size_bytes, sha256=prepared.loaded.sha256
        ),
        input_shape=tuple(prepared.example.shape[1:]),
        input_shapes=shapes_of(prepared.teacher, prepared.example.shape),
        measure=table.measure,
        parameters=table.parameters,
        macs=table.macs,
        latency=table.seconds,
        layers=table.layers,
        kept=layer_rows(plan, prepared.layers, None, {}, prepared.before),
        linears=linear_rows(prepared.linears, prepared.before),
        frontiers=frontiers,
        uniform=_uniform(table),
        images=images.report,
        runtime=f"onnxruntime {version('onnxruntime')}" if table.seconds is not None else None,
        warnings=(
            *images.notes,
            *table.notes,
            *linears_unknown(asked=options.linear, traced=prepared.network is not None),
            *_warnings(prepared.network is not None, images.report.source),
        ),
        seconds=dict(clock.seconds),
    )
    return Inspected(report=report, table=table, prepared=prepared, costs=costs)


@shortages_named()
def chosen(found: Inspected, targets: Sequence[Target], options: ConversionOptions) -> NetworkPlan:
    """The least harmful plan within limits, from what was measured: what a conversion would choose by the same.

    Raises `BudgetError` where there is none or a latency was not measured, `NothingEligibleError` where it keeps all.
    """
    prepared, share_of = found.prepared, None
    if any(target.cost == "latency" for target in targets):
        if found.costs is None:
            raise BudgetError("latency: nothing was timed, so it is no target here; inspect again with measure=True")
        share_of = timed_share(prepared.subject, prepared.example.cpu(), found.costs, options.threads)
    wanted = replace(options, targets=tuple(targets))
    searched = search(found.table, wanted, prepared.loaded.size_bytes, share_of)
    check_something_converted(searched.plan)
    return NetworkPlan(
        plan=searched.plan,
        source_sha256=prepared.loaded.sha256,
        linear=bool(flattened_convs(prepared.teacher)),
        predicted=searched.point,
    )


def _uniform(table: OptionTable) -> tuple[tuple[str, Point], ...]:
    """Every layer alike, for each kind that some layer has."""
    found = {option.kind for layer in table.layers for option in layer.options}
    return tuple((kind, point_of(table, uniform(table, kind))) for kind in KINDS if kind in found)


def _warnings(traced: bool, source: str) -> tuple[str, ...]:
    sentences = []
    if not traced:
        sentences.append(
            "the network's control flow cannot be traced: layers are measured one by one without their norms"
        )
    if source == "synthetic":
        sentences.append("no --data was given: damage is measured on synthetic images, and real ones tell more")
    return tuple(sentences)
