"""The layers of a conversion as rich renderables: every one in a table, or gathered by spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vfconvert.reporting.figures import ALL, DECISION_OF_THE_REST, EVERYTHING_ELSE, converted_of, decision_text, rest_of
from vfconvert.reporting.report import ConversionReport, LayerRow
from vfconvert.reporting.units import percent, plural, whole

_MOST_SPECS = 6


def layers_table(report: ConversionReport) -> Table:
    """Every Conv2d with its decision; the weight columns add up to the parameters of the whole network."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    table.add_column("layer", Text(ALL), overflow="fold", max_width=28)
    table.add_column("decision", overflow="fold")
    table.add_column("unexpl.", justify="right", no_wrap=True)
    table.add_column("weights", Text(whole(report.before.parameters)), justify="right", no_wrap=True)
    table.add_column("after", Text(whole(report.after.parameters)), justify="right", no_wrap=True)
    for row in report.layers:
        table.add_row(
            Text(row.name),
            Text(decision_text(row)),
            "" if row.unexplained is None else percent(row.unexplained),
            whole(row.weights_before),
            whole(row.weights_after),
        )
    rest = rest_of(report)
    table.add_row(
        Text(EVERYTHING_ELSE),
        Text(DECISION_OF_THE_REST),
        "",
        whole(rest.weights_before),
        whole(rest.weights_after),
    )
    return table


def layers_summary(report: ConversionReport) -> Iterator[RenderableType]:
    """How many layers were converted to what."""
    converted = [row for row in report.layers if row.decision == "convert"]
    yield Text(f"Converted: {converted_of(report)}", style="bold")
    specs = _grouped(converted, [decision_text(row) for row in converted])
    for spec, rows in specs[:_MOST_SPECS]:
        yield indented(f"{whole(len(rows))} x {spec}")
    if len(specs) > _MOST_SPECS:
        rest = sum(len(rows) for _, rows in specs[_MOST_SPECS:])
        yield indented(f"{whole(rest)} x {plural(len(specs) - _MOST_SPECS, 'other choice')}; -v lists every layer")
    measured = [(row.unexplained, row.name) for row in converted if row.unexplained is not None]
    if measured:
        worst, name = max(measured)
        middle = median(share for share, _ in measured)
        yield indented(f"unexplained by the fit: median {percent(middle)}, most {percent(worst)} ({name})")


def _grouped(rows: Sequence[LayerRow], keys: Sequence[str]) -> list[tuple[str, list[LayerRow]]]:
    """Rows of equal keys together, the largest group first, then in the order in which they came."""
    groups: dict[str, list[LayerRow]] = {}
    for key, row in zip(keys, rows, strict=True):
        groups.setdefault(key, []).append(row)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def indented(text: Text | str) -> Padding:
    """Two columns to the right, on every line that it takes."""
    return Padding(Text(text) if isinstance(text, str) else text, (0, 0, 0, 2), expand=False)
