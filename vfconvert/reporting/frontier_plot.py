"""The frontiers of an inspection as a picture: damage against each share of the original network."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vfconvert.budget.frontier import Point
from vfconvert.errors import MissingPackageError, UnwritableOutputError
from vfconvert.files import atomic_path, check_writable
from vfconvert.reporting.inspect_report import InspectReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
# Colours that people who see few colours tell apart (Okabe and Ito); lines and marks differ besides.
_CURVES = {
    "params": ("parameters", "#0072B2", "-"),
    "macs": ("MACs", "#D55E00", "--"),
    "latency": ("latency", "#009E73", "-."),
}
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_UNITS = {"nats": "nats", "variance": "share of the output's variance"}
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "vfconvert",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
}
# Dates and versions would make equal pictures unequal files.
_METADATA: dict[str, dict[str, str | None]] = {"svg": {"Date": None, "Creator": "vfconvert"}, "png": {"Software": None}}


def check_picture(path: Path) -> None:
    """Raise `UnwritableOutputError`, also for another suffix, and `MissingPackageError` where matplotlib is missing."""
    if _suffix(path) not in FORMATS:
        raise UnwritableOutputError(f"cannot write {path}: a picture's name ends in .svg or .png; choose another name")
    _matplotlib()
    check_writable(path)


def _matplotlib() -> tuple[ModuleType, type[Figure]]:
    """The package, and its class of figures."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("pictures need matplotlib; run: pip install 'vfconvert[plot]'") from error
    return mpl, Figure


def draw_frontier(report: InspectReport, path: Path) -> None:
    """Write the picture, SVG or PNG by the suffix of `path`: the whole file or none. The same report, the same bytes.

    Shares are in percent, damage in nats or as a share of the output's variance, as the report's `measure` says.
    Raises what `check_picture` does.
    """
    check_picture(path)
    mpl, figure_of = _matplotlib()
    suffix = _suffix(path)
    with atomic_path(path) as temporary, mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own settings are
        mpl.rcParams.update(_SETTINGS)
        figure = figure_of(figsize=(7.2, 4.8), dpi=150, layout="constrained")
        _draw(figure, report)
        figure.savefig(temporary, format=suffix, metadata=_METADATA[suffix])


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _draw(figure: Figure, report: InspectReport) -> None:
    axes = figure.add_subplot()
    costs = []
    for frontier in report.frontiers:
        points = [(x, point.damage) for point in frontier.points if (x := _share(point, frontier.cost)) is not None]
        if not points:
            continue
        label, colour, line = _CURVES[frontier.cost]
        axes.plot(
            *zip(*points, strict=True), color=colour, linestyle=line, marker=".", label=f"least damage by {label}"
        )
        costs.append(frontier.cost)
    for (name, point), mark in zip(report.uniform, _MARKS * len(report.uniform), strict=False):
        axes.plot([], [], color="#555555", linestyle="", marker=mark, fillstyle="none", label=f"all layers {name}")
        for cost in costs:
            x = _share(point, cost)
            if x is not None:
                axes.plot([x], [point.damage], color=_CURVES[cost][1], linestyle="", marker=mark, fillstyle="none")
    _label(axes, report)


def _label(axes: Axes, report: InspectReport) -> None:
    every = [point for frontier in report.frontiers for point in frontier.points]
    every += [point for _, point in report.uniform]
    positive = [point.damage for point in every if point.damage > 0]
    if positive:
        # Logarithmic but for the original itself, whose damage is 0.
        axes.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(min(positive))), linscale=0.5)
        axes.set_ylim(0, 1.5 * max(positive))
    axes.set_xlabel("share of the original network (%)")
    axes.set_ylabel(f"predicted damage ({_UNITS.get(report.measure, report.measure)})")
    axes.set_title(f"Damage against size, work and time: {Path(report.input.path).name}", fontsize="medium")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")


def _share(point: Point, cost: str) -> float | None:
    """Percent of the original's parameters, MACs or seconds."""
    share = {"params": point.parameters_share, "macs": point.macs_share, "latency": point.seconds_share}[cost]
    return None if share is None else 100 * share
