"""The report for people, in the order of their questions: is it still my network, how small is it, what was done.

Everything is plain text with styles, so that it reads the same without colours; readable from 60 columns.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vfconvert.reporting.budget_lines import budget_lines
from vfconvert.reporting.figures import size_figures
from vfconvert.reporting.gate_lines import discarded_lines, gate_lines
from vfconvert.reporting.layers import indented, layers_summary, layers_table
from vfconvert.reporting.ledger import ledger
from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.sentences import (
    images_lines,
    notes,
    parity_lines,
    provenance_lines,
    speed_lines,
    whose_images,
)
from vfconvert.reporting.training import training_lines
from vfconvert.reporting.units import judged_value, mebibytes, milliseconds, percent, plural, seconds, small


def render(report: ConversionReport, *, verbose: bool = False) -> Group:
    """The whole report; `verbose` lists every layer and how the result came about."""
    parts: list[RenderableType] = [*_headline(report), totals_table(report), *notes(report)]
    parts.extend([layers_table(report)] if verbose else [Text(), *layers_summary(report)])
    parts.extend([*ledger(report.layers, verbose=verbose, linears=report.linears), Text()])
    parts.extend(budget_lines(report.budget))
    parts.extend(training_lines(report.training))
    parts.extend(speed_lines(report))
    if report.precisions:
        parts.append(precisions_table(report))
    parts.extend(images_lines(report))
    parts.extend(parity_lines(report))
    if verbose:
        parts.extend(_provenance(report))
    parts.extend(_warnings(report))
    parts.extend(gate_lines(report))
    parts.extend([*_files(report), *discarded_lines(report)])
    return Group(*parts)


def render_test(report: ConversionReport, images: int, accuracy_before: float, accuracy_after: float) -> Group:
    """What a set of test images says of the model file and of the written file, above the sizes of both."""
    title = f"On {plural(images, 'test image')} that neither training nor conversion has seen:"
    accuracies = ("accuracy", percent(accuracy_before), percent(accuracy_after))
    return Group(Text(), Text(title, style="bold"), totals_table(report, accuracies))


def totals_table(report: ConversionReport, *first: tuple[str, str, str]) -> Table:
    """Before, after and their ratio; the rows `first` (label, before, after) stand above the others."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    for heading in ("before", "after", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, was, now in first:
        table.add_row(label, was, now, "")
    for figure in size_figures(report):
        table.add_row(figure.label, figure.before, figure.after, figure.change)
    return table


def _headline(report: ConversionReport) -> Iterator[RenderableType]:
    found = report.agreement
    if report.dry:
        yield Text("Dry run: these are the decisions; nothing was fitted, nothing is written.", style="bold")
    if found is None:
        return
    yield Text("Is it still my network?", style="bold")
    value = judged_value(found.measure, found.value)
    yield indented(
        Text.assemble(f"{found.measure} with the original: ", (value, "bold"), f" on {whose_images(found, report)}")
    )
    if found.accuracy_before is not None and found.accuracy_after is not None:
        accuracies = f"{percent(found.accuracy_before)} -> {percent(found.accuracy_after)}"
        yield indented(Text.assemble("accuracy on their labels: ", (accuracies, "bold")))
    yield indented(f"relative error of the outputs: {small(found.relative_error)}")


def precisions_table(report: ConversionReport) -> Table:
    """Original and converted network in each precision, side by side."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("precision")
    for heading in ("bytes", "latency", report.precisions[0].measure):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.precisions:
        value = judged_value(row.measure, row.value)
        table.add_row(row.name, mebibytes(row.bytes), milliseconds(row.seconds), value)
    return table


def _provenance(report: ConversionReport) -> Iterator[Text]:
    yield from provenance_lines(report)
    yield _unbroken(f"Command: {report.command}")
    yield _unbroken(f"Read: {report.input.path} (sha256 {report.input.sha256})")
    if report.output is not None:
        yield _unbroken(f"Wrote: {report.output.path} (sha256 {report.output.sha256})")


def _warnings(report: ConversionReport) -> Iterator[Text]:
    for warning in report.warnings:
        yield Text(f"Warning: {warning}", style="yellow")


def _files(report: ConversionReport) -> Iterator[Text]:
    for other in report.artefacts[1:]:
        yield _unbroken(f"Written: {other.path} ({mebibytes(other.bytes)})")
    for precision in report.precisions:
        if precision.path is not None and (report.output is None or precision.path != report.output.path):
            yield _unbroken(f"Written: {precision.path} ({mebibytes(precision.bytes)})")
    if report.output is not None:
        spent = f" after {seconds(sum(report.seconds.values()))}" if report.seconds else ""
        yield _unbroken(f"Written: {report.output.path} ({mebibytes(report.output.bytes)}){spent}")


def _unbroken(line: str) -> Text:
    """A line that may run past the right edge: a broken path or command cannot be copied."""
    return Text(line, no_wrap=True, overflow="ignore")
