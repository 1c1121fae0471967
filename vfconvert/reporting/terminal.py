"""The report for people, in the order of their questions: is it still my network, how small is it, what was done.

Everything is plain text with styles, so that it reads the same without colours; readable from 60 columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vfconvert.reporting.budget import budget_lines
from vfconvert.reporting.gates import discarded_lines, gate_lines
from vfconvert.reporting.layers import indented, layers_summary, layers_table
from vfconvert.reporting.ledger import ledger
from vfconvert.reporting.report import AgreementReport, ConversionReport
from vfconvert.reporting.training import training_lines
from vfconvert.reporting.units import decibels, mebibytes, milliseconds, percent, plural, ratio, seconds, small, whole


def render(report: ConversionReport, *, verbose: bool = False) -> Group:
    """The whole report; `verbose` lists every layer and how the result came about."""
    parts: list[RenderableType] = [*_headline(report), totals_table(report), *_notes(report)]
    parts.extend([layers_table(report)] if verbose else [Text(), *layers_summary(report)])
    parts.extend([*ledger(report.layers, verbose=verbose), Text()])
    parts.extend(budget_lines(report.budget))
    parts.extend(training_lines(report.training))
    parts.extend(_speed(report))
    parts.extend(_images(report))
    parts.extend(_parity(report))
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
    before, after = report.before, report.after
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    for heading in ("before", "after", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, was, now in first:
        table.add_row(label, was, now, "")
    _add(table, "parameters", before.parameters, after.parameters, whole)
    _add(table, "bytes of weights", before.weight_bytes, after.weight_bytes, mebibytes)
    if before.file_bytes is not None and after.file_bytes is not None:
        _add(table, "bytes of the file", before.file_bytes, after.file_bytes, mebibytes)
    _add(table, "MACs, method's count", before.macs_method, after.macs_method, whole)
    _add(table, "MACs, executed", before.macs_executed, after.macs_executed, whole)
    return table


def _add(table: Table, label: str, before: int, after: int, shown: Callable[[int], str]) -> None:
    table.add_row(label, shown(before), shown(after), ratio(after, before))


def _headline(report: ConversionReport) -> Iterator[RenderableType]:
    found = report.agreement
    if report.output is None and not report.discarded:
        yield Text("Dry run: these are the decisions; nothing was fitted, nothing is written.", style="bold")
    if found is None:
        return
    yield Text("Is it still my network?", style="bold")
    value = decibels(found.value) if found.measure == "PSNR" else percent(found.value)
    yield indented(
        Text.assemble(f"{found.measure} with the original: ", (value, "bold"), f" on {_whose(found, report)}")
    )
    if found.accuracy_before is not None and found.accuracy_after is not None:
        accuracies = f"{percent(found.accuracy_before)} -> {percent(found.accuracy_after)}"
        yield indented(Text.assemble("accuracy on their labels: ", (accuracies, "bold")))
    yield indented(f"relative error of the outputs: {small(found.relative_error)}")


def _whose(found: AgreementReport, report: ConversionReport) -> str:
    if found.held_out:
        return plural(found.images, "held-out image")
    if report.images is not None and report.images.source == "synthetic":
        return f"{plural(found.images, 'synthetic image')}; real ones (--data) tell more"
    return f"{plural(found.images, 'image')} of the fit; none was held out"


def _notes(report: ConversionReport) -> Iterator[Text]:
    yield Text("1 MAC = one multiply-add, FLOPs = 2 x MACs, of one image.", style="dim")
    yield Text("1 MiB = 2^20 bytes, 1 KiB = 2^10 bytes.", style="dim")
    if report.after.macs_executed >= report.before.macs_executed:
        yield Text("The executed MACs have not fallen: smaller, not faster.", style="bold")
    uncounted = report.before.uncounted or report.after.uncounted
    if uncounted:
        listed = ", ".join(f"{name} ({count})" for name, count in uncounted.items())
        yield Text(f"MACs are lower bounds; not counted: {listed}.")


def _speed(report: ConversionReport) -> Iterator[RenderableType]:
    found = report.latency
    if found is not None:
        faster = f"{found.before / found.after:.2f} times as fast" if found.ratio < 1 else "not faster here"
        yield Text.assemble(
            "Latency: ",
            (f"{milliseconds(found.before)} -> {milliseconds(found.after)}", "bold"),
            f" (ratio {found.ratio:.3f}, {faster}; medians of {found.rounds} runs in turns, between quartiles "
            f"{milliseconds(found.spread_before)} and {milliseconds(found.spread_after)}; batch {found.batch}, "
            f"{plural(found.threads, 'thread')}, {found.runtime})",
        )
    forms = [row.form for row in report.layers if row.form is not None]
    if forms:
        counts = Counter(forms)
        measured = " (smaller, not faster here)" if found is not None else ""
        said = ", ".join(
            f"{count} as ordinary convolutions{measured}" if form == "plain" else f"{count} in {form}"
            for form, count in counts.most_common()
        )
        yield Text(f"How the file computes the converted layers: {said}.")
    if report.precisions:
        yield precisions_table(report)


def precisions_table(report: ConversionReport) -> Table:
    """Original and converted network in each precision, side by side."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("precision")
    for heading in ("bytes", "latency", report.precisions[0].measure):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.precisions:
        value = decibels(row.value) if row.measure == "PSNR" else percent(row.value)
        table.add_row(row.name, mebibytes(row.bytes), milliseconds(row.seconds), value)
    return table


def _images(report: ConversionReport) -> Iterator[RenderableType]:
    images = report.images
    if images is None:
        return
    if images.source == "synthetic":
        yield Text(f"Fitted on {plural(images.calibration, 'synthetic image')}: {images.method}.")
        return
    held_out = f"{whole(images.held_out)} held out" if images.held_out else "none held out"
    yield Text(f"Fitted on {plural(images.calibration, 'image')} of {images.source}: {images.method}; {held_out}.")
    yield indented(f"prepared as: {images.preprocessing}")


def _parity(report: ConversionReport) -> Iterator[Text]:
    parity = report.parity
    if parity is None:
        return
    sizes = ", ".join(str(size) for size in parity.batch_sizes)
    batch = "any batch size" if parity.dynamic_batch else "this batch size only"
    yield Text(
        f"The file computes what the converted network computes: max|d| {small(parity.maximum_error)}, "
        f"max|d|/max|y| {small(parity.relative_error)} (allowed {small(parity.tolerance)}), "
        f"batches of {sizes} in {parity.runtime}; it takes {batch}."
    )


def _provenance(report: ConversionReport) -> Iterator[Text]:
    if report.seconds:
        yield Text("Time: " + ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items()))
    shape = " x ".join(str(length) for length in report.input_shape)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Text(f"Seed {report.seed}, device {report.device}, input {shape}; {versions}")
    if report.trusted_pickle:
        yield Text("The model file was trusted to run code (--trust-pickle).")
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
