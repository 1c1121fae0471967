"""The figures of a conversion as every renderer prints them: before, after and their ratio; what each layer has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vfconvert.reporting.latency import PrecisionReport
from vfconvert.reporting.report import ConversionReport, LayerRow
from vfconvert.reporting.units import mebibytes, milliseconds, percent, plural, ratio, whole

EVERYTHING_ELSE = "everything else"
DECISION_OF_THE_REST = "norms, biases, scales, other layers"
ALL = "all parameters"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A line of the table: texts, and `share` = after / before, for a bar, where a smaller one is the aim."""

    label: str
    before: str
    after: str
    change: str
    share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """What a layer, or all else, or the whole network has. Executed MACs are None where nothing was written."""

    weights_before: int
    weights_after: int
    macs_before: int
    macs_after: int
    macs_executed: int | None


def figures(report: ConversionReport) -> Iterator[Figure]:
    """All of the whole network: accuracy where it is known, sizes, latency where it was measured."""
    found, latency = report.agreement, report.latency
    if found is not None and found.accuracy_before is not None and found.accuracy_after is not None:
        change = 100 * (found.accuracy_after - found.accuracy_before)
        yield Figure(
            label="accuracy",
            before=percent(found.accuracy_before),
            after=percent(found.accuracy_after),
            change=f"{change:+.2f} points",
        )
    yield from size_figures(report)
    if latency is not None:
        yield _figure("latency, median", latency.before, latency.after, milliseconds)


def size_figures(report: ConversionReport) -> Iterator[Figure]:
    """Parameters, bytes and multiply-adds."""
    before, after = report.before, report.after
    yield _figure("parameters", before.parameters, after.parameters, whole)
    yield _figure("bytes of weights", before.weight_bytes, after.weight_bytes, mebibytes)
    if before.file_bytes is not None and after.file_bytes is not None:
        yield _figure("bytes of the file", before.file_bytes, after.file_bytes, mebibytes)
    yield _figure("MACs, method's count", before.macs_method, after.macs_method, whole)
    yield _figure("MACs, executed", before.macs_executed, after.macs_executed, whole)


def _figure(label: str, before: float, after: float, shown: Callable[..., str]) -> Figure:
    share = after / before if before else None
    return Figure(label=label, before=shown(before), after=shown(after), change=ratio(after, before), share=share)


def numbers_of(row: LayerRow) -> Numbers:
    """Of one layer; a kept one is executed as it is counted."""
    executed = row.macs_after if row.decision == "keep" else row.macs_executed
    return Numbers(
        weights_before=row.weights_before,
        weights_after=row.weights_after,
        macs_before=row.macs_before,
        macs_after=row.macs_after,
        macs_executed=executed,
    )


def totals_of(report: ConversionReport) -> Numbers:
    """Of the whole network."""
    written = all(numbers_of(row).macs_executed is not None for row in report.layers)
    return Numbers(
        weights_before=report.before.parameters,
        weights_after=report.after.parameters,
        macs_before=report.before.macs_method,
        macs_after=report.after.macs_method,
        macs_executed=report.after.macs_executed if written else None,
    )


def rest_of(report: ConversionReport) -> Numbers:
    """Of everything but the layers, so that the columns add up to those of the whole network."""
    rows, totals = [numbers_of(row) for row in report.layers], totals_of(report)
    executed = totals.macs_executed
    return Numbers(
        weights_before=totals.weights_before - sum(row.weights_before for row in rows),
        weights_after=totals.weights_after - sum(row.weights_after for row in rows),
        macs_before=totals.macs_before - sum(row.macs_before for row in rows),
        macs_after=totals.macs_after - sum(row.macs_after for row in rows),
        macs_executed=None if executed is None else executed - sum(row.macs_executed or 0 for row in rows),
    )


def decision_text(row: LayerRow) -> str:
    """What becomes of a layer, and how the file computes it."""
    if row.decision == "keep":
        return f"kept ({row.code or 'no reason given'})"
    said = row.spec or "converted"
    if row.group_convolution:
        said += " (a group convolution: windows share nothing)"
    if row.form is None:
        return said
    return f"{said}; computed as an ordinary convolution" if row.form == "plain" else f"{said}; in {row.form}"


def converted_of(report: ConversionReport) -> str:
    """`18 of 19 Conv2d layers`."""
    converted = sum(row.decision == "convert" for row in report.layers)
    return f"{whole(converted)} of {plural(len(report.layers), 'Conv2d layer')}"


def further_files(report: ConversionReport) -> Iterator[PrecisionReport]:
    """The files of further precisions, which are no artefacts of a format."""
    known = {file.path for file in report.artefacts}
    yield from (row for row in report.precisions if row.path is not None and row.path not in known)
