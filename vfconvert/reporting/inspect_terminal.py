"""An inspection for people: what each layer could become, what stays, and what the best plans would cost.

Everything is plain text with styles, so that it reads the same without colours; readable from 60 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vfconvert.budget.frontier import Point
from vfconvert.budget.table import LayerOptions, Option
from vfconvert.reporting.describe import shape_text
from vfconvert.reporting.inspect_report import InspectReport, saved, smallest
from vfconvert.reporting.layers import indented
from vfconvert.reporting.ledger import ledger
from vfconvert.reporting.units import metric, milliseconds, percent, plural, seconds, shapes_text, small, whole

KINDS = ("spatial", "lines", "channel", "both")
COSTS = {"params": "parameters", "macs": "MACs", "latency": "latency"}
_MOST_POINTS = 10
_MEASURES = {
    "nats": "in nats by which its distribution over classes moves (Kullback-Leibler divergence)",
    "variance": "as the share of its own variance by which it moves",
}


def render_inspect(report: InspectReport, *, verbose: bool = False) -> Group:
    """The whole report; `verbose` lists every option of every layer, every kept layer and where all came from."""
    parts: list[RenderableType] = [*_network(report)]
    if report.layers:
        parts.append(options_table(report) if verbose else kinds_table(report))
        parts.extend([*_how_to_read(report), Text()])
    parts.extend(ledger(report.kept, verbose=verbose, others=len(report.layers), linears=report.linears))
    parts.append(Text())
    for frontier in report.frontiers:
        parts.append(Text(f"Least damage by {COSTS.get(frontier.cost, frontier.cost)}", style="bold"))
        parts.append(points_table([("", point) for point in _thinned(frontier.points)], report.measure))
    if report.uniform:
        parts.append(Text("Every layer alike, to compare with", style="bold"))
        parts.append(points_table(report.uniform, report.measure))
    parts.extend(_provenance(report, verbose=verbose))
    return Group(*parts)


def kinds_table(report: InspectReport) -> Table:
    """One row for each layer: what the smallest option of each kind explains, saves (below zero) and damages."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer", overflow="fold", max_width=32)
    table.add_column("smallest", no_wrap=True)
    for kind in KINDS:
        table.add_column(kind, justify="right", no_wrap=True, min_width=8)
    for number, layer in enumerate(report.layers):
        if number:
            table.add_row()
        name = Text.assemble((layer.layer, "bold"), f"\n{shape_text(layer.geometry)}")
        cells = [_kind_cell(layer, smallest(layer, kind)) for kind in KINDS]
        table.add_row(name, "explained\nparams\nMACs\ndamage", *cells)
    return table


def options_table(report: InspectReport) -> Table:
    """Every option of every layer in a row of its own, the layer as it is first."""
    timed = any(option.seconds is not None for layer in report.layers for option in layer.options)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("option", overflow="fold")
    for heading in ("params", "MACs", *(["time"] if timed else []), "unexpl.", "damage"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in report.layers:
        table.add_row(Text.assemble((layer.layer, "bold"), f" {shape_text(layer.geometry)}"))
        for option in layer.options:
            spec = "" if option.spec is None else f": {option.spec}"
            time = "-" if option.seconds is None else milliseconds(option.seconds)
            table.add_row(
                indented(f"{option.kind}{spec}"),
                metric(option.parameters),
                metric(option.macs),
                *([time] if timed else []),
                percent(option.unexplained),
                small(option.damage),
            )
    return table


def points_table(points: Sequence[tuple[str, Point]], measure: str) -> Table:
    """Plans, named or not: what the whole network then has of the original's, and the damage."""
    timed = any(point.seconds_share is not None for _, point in points)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    if any(name for name, _ in points):
        table.add_column("kind", overflow="fold")
    headings = ("parameters", "MACs", *(["latency"] if timed else []), f"damage ({measure})")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, point in points:
        latency = "-" if point.seconds_share is None else percent(point.seconds_share)
        table.add_row(
            *([Text(name)] if any(label for label, _ in points) else []),
            percent(point.parameters_share),
            percent(point.macs_share),
            *([latency] if timed else []),
            small(point.damage),
        )
    return table


def _network(report: InspectReport) -> Iterator[Text]:
    sizes = f"{whole(report.parameters)} parameters, {whole(report.macs)} MACs"
    if report.latency is not None:
        sizes += f", {milliseconds(report.latency)}"
        sizes += f" in {report.runtime}" if report.runtime is not None else ""
    yield Text(f"The whole network: {sizes}.")
    convertible = f"{whole(len(report.layers))} of {plural(len(report.layers) + len(report.kept), 'Conv2d layer')}"
    yield Text(f"Convertible: {convertible}", style="bold")


def _kind_cell(layer: LayerOptions, option: Option | None) -> str:
    if option is None:
        return "-"
    parameters, macs = saved(layer, option)
    return f"{percent(1 - option.unexplained)}\n{metric(-parameters)}\n{metric(-macs)}\n{small(option.damage)}"


def _how_to_read(report: InspectReport) -> Iterator[Text]:
    yield Text(
        "Explained is the share of a layer's output variance, weighted by how the network's output reacts to it, that "
        "the layer keeps when it alone is converted and fitted.",
        style="dim",
    )
    yield Text(
        f"Damage is what that does to the network's output, {_MEASURES.get(report.measure, report.measure)}: it "
        "adds up over layers, and is a prediction, so compare plans by it and judge the result on images.",
        style="dim",
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most ten of the points, evenly spread, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(index * last / (_MOST_POINTS - 1))] for index in range(_MOST_POINTS)]


def _provenance(report: InspectReport, *, verbose: bool) -> Iterator[Text]:
    yield Text("Shares are of the original network. 1 MAC = one multiply-add of one image.", style="dim")
    if report.images is not None:
        if report.images.source == "synthetic":
            yield Text(f"Measured on {plural(report.images.calibration, 'synthetic image')}.")
        else:
            yield Text(f"Measured on {plural(report.images.calibration, 'image')} of {report.images.source}.")
    if verbose:
        if report.images is not None:
            yield Text(f"Images: {report.images.method}; prepared as: {report.images.preprocessing}")
        if report.seconds:
            yield Text("Time: " + ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items()))
        shape = shapes_text(report.input_shapes or (report.input_shape,))
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        yield Text(f"Seed {report.seed}, device {report.device}, input {shape}; {versions}")
        yield Text(f"Command: {report.command}", no_wrap=True, overflow="ignore")
        yield Text(f"Read: {report.input.path} (sha256 {report.input.sha256})", no_wrap=True, overflow="ignore")
    for warning in report.warnings:
        yield Text(f"Warning: {warning}", style="yellow")
