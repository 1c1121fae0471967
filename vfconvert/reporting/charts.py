"""How a training went, as pictures for a page: SVG whose colours are those of the page, light or dark."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vfconvert.reporting.report import TrainingReport
from vfconvert.reporting.training import metric_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each colour stands for a variable of the page's style sheet.
_INK, _DIM, _RULE, _LINE, _MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _DIM: "--dim", _RULE: "--rule", _LINE: "--after", _MARK: "--left"}
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "vfconvert",
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.size": 10.0,
}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # equal pictures, equal text
_PERCENT = ("top1", "top5", "miou", "agreement")
_UNITS = {"psnr": "dB"} | dict.fromkeys(_PERCENT, "%")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """`svg` is markup for a page; `title` says what it shows."""

    title: str
    svg: str


def training_charts(found: TrainingReport | None) -> tuple[Chart, ...]:
    """The metric by epoch and the loss by step; none where matplotlib is not installed."""
    if found is None:
        return ()
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return ()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        charts = [_metric_chart(found, Figure)]
        if found.losses:
            charts.append(_loss_chart(found, Figure))
        return tuple(charts)


def _metric_chart(found: TrainingReport, make: type[Figure]) -> Chart:
    epochs = [int(record["epoch"]) for record in found.epochs]
    values = [float(record[found.metric]) for record in found.epochs]
    unit = _UNITS.get(found.metric)
    best = found.best_epoch
    place = epochs.index(best)

    def draw(axes: Axes) -> None:
        axes.plot(epochs, values, color=_LINE, marker="o", markersize=4)
        axes.plot([best], [values[place]], color=_MARK, marker="o", markersize=9, fillstyle="none", linestyle="")
        axes.set_xlabel("epoch")
        axes.set_ylabel(found.metric if unit is None else f"{found.metric} ({unit})")
        axes.locator_params(axis="x", integer=True)

    kept = metric_text(found.metric, values[place])
    title = f"{found.metric} on the images that it was chosen by; kept: epoch {best}, {kept}"
    return Chart(title=title, svg=_drawn(make, draw, "metric", title))


def _loss_chart(found: TrainingReport, make: type[Figure]) -> Chart:
    def draw(axes: Axes) -> None:
        axes.plot(*zip(*found.losses, strict=True), color=_LINE, linewidth=1.2)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")

    first, last = found.losses[0], found.losses[-1]
    title = f"loss in training, from {first[1]:.3g} at step {first[0]} to {last[1]:.3g} at step {last[0]}"
    return Chart(title=title, svg=_drawn(make, draw, "loss", title))


def _drawn(make: type[Figure], draw: Any, name: str, title: str) -> str:
    """An `<svg>` element of 5.4 x 2.9 inches; its identifiers begin with `name`, so that several fit in one page."""
    figure = make(figsize=(5.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(visible=True, color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_DIM, labelsize=9)
    axes.xaxis.label.set_color(_DIM)
    axes.yaxis.label.set_color(_DIM)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_DIM)
    made = io.StringIO()
    figure.savefig(made, format="svg", transparent=True, metadata=_METADATA)
    return _inlined(made.getvalue(), name, title)


def _inlined(document: str, name: str, title: str) -> str:
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r'\b(id="|xlink:href="#|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
