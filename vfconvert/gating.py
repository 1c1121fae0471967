"""Gates: limits on the measured report. Refused before any work where a run could not check them, judged after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vfconvert.errors import GateError, UncheckableGateError
from vfconvert.options import ConversionOptions
from vfconvert.reporting.describe import drop_measure, points_lost
from vfconvert.reporting.gates import figure_text, gate_text
from vfconvert.reporting.report import ConversionReport, GateReport
from vfconvert.verification.parity import FLOAT32_TOLERANCE


def check_gates(options: ConversionOptions) -> None:
    """Raise `UncheckableGateError` where the run that is asked for would not measure what a gate limits."""
    if _timed(options) and not options.measure:
        flag = "--max-latency-ratio" if options.max_latency_ratio is not None else "--fail-under-saving latency"
        raise UncheckableGateError(f"{flag}: --no-measure times nothing; drop one of the two")
    if options.fail_over_drop is not None and options.data is None:
        raise UncheckableGateError(
            "--fail-over-drop is judged on images held out of --data, and there is none; add it or drop the gate"
        )
    error = options.max_parity_error
    if error is not None and not error <= FLOAT32_TOLERANCE:
        raise UncheckableGateError(
            f"--max-parity-error: got {error:g}, expected at most {FLOAT32_TOLERANCE:g}; a file that differs by more "
            "is an error and never written, gate or not"
        )


def _timed(options: ConversionOptions) -> bool:
    """Whether a gate is on latency."""
    return options.max_latency_ratio is not None or any(one.cost == "latency" for one in options.fail_under_saving)


def gated(report: ConversionReport, options: ConversionOptions) -> ConversionReport:
    """The report with its gates judged; where one failed, and files are not to be kept, as it is without the files."""
    if options.dry_run:
        told = ("gates judge what was made and measured, and a dry run makes nothing: none was judged",)
        return replace(report, warnings=(*report.warnings, *told)) if options.gated else report
    doubts = (*_beyond_the_search(report, options), *_of_noise(report, options))
    warnings = dict.fromkeys((*report.warnings, *doubts))  # judged again, it says so once
    report = replace(report, gates=tuple(_gates(report, options)), warnings=tuple(warnings))
    if not report.failed_gates or options.keep_on_fail:
        return report
    return replace(
        report,
        output=None,
        artefacts=(),
        discarded=report.artefacts,
        precisions=tuple(replace(row, path=None) for row in report.precisions),
    )


def refuse_failed(report: ConversionReport) -> None:
    """Raise `GateError`, which has the report and names each failed gate with what it got, where there is one."""
    if report.failed_gates:
        raise _failure(report)


def _failure(report: ConversionReport) -> GateError:
    said = "; ".join(f"--{gate.name}: {gate_text(gate)}" for gate in report.failed_gates)
    kept = "; the files were kept" if report.artefacts else ""
    # A run that trains writes over no checkpoint, so that to repeat the command is refused without --resume.
    again = "--keep-on-fail writes it"
    if report.training is not None:
        again = "repeat the command with --resume under other gates, or with --keep-on-fail --resume to have it"
    files = f"; no file was written ({again})" if report.discarded else kept
    error = GateError(f"{len(report.failed_gates)} of {len(report.gates)} gate(s) failed: {said}{files}")
    error.report = report
    return error


def _of_noise(report: ConversionReport, options: ConversionOptions) -> Iterator[str]:
    """A gate on time that is judged by timings of which another run may say the opposite."""
    if _timed(options) and report.latency is not None and not report.latency.settled:
        yield (
            "the gate on latency was judged by runs of which those of one file vary by more than the files differ: "
            "another run may judge otherwise; use an idle machine"
        )


def _beyond_the_search(report: ConversionReport, options: ConversionOptions) -> Iterator[str]:
    """`--max-drop` holds on the images that the plan was chosen on, and a plan just within it may fall short on others.

    That is no failure: it would be one in every other run. `--fail-over-drop` is the gate.
    """
    if options.max_drop is None or report.agreement is None or options.fail_over_drop is not None:
        return
    lost = points_lost(report.agreement)
    if not lost <= options.max_drop:
        yield (
            f"{drop_measure(report.agreement)} on the images that judge: {figure_text(lost, 'points')}; --max-drop "
            f"{options.max_drop:g} holds on those that chose the plan, and --fail-over-drop sets a limit here"
        )


def _gates(report: ConversionReport, options: ConversionOptions) -> Iterator[GateReport]:
    for saving in options.fail_under_saving:
        share = _share(report, saving.cost)
        got = None if share is None else 1 - share
        name, figure = f"fail-under-saving {saving.cost}", f"{_SAVED[saving.cost]} saved"
        unknown = {**(report.before.uncounted or {}), **(report.after.uncounted or {})}
        if saving.cost == "macs" and unknown:
            figure += f" (of those counted: {', '.join(unknown)} not)"
        yield _gate(name, figure, "share", "at least", saving.share, got)
    if (points := options.fail_over_drop) is not None:
        found = report.agreement
        figure = drop_measure(found) if found is not None else "accuracy lost"
        lost = points_lost(found) if found is not None else None
        yield _gate("fail-over-drop", figure, "points", "at most", points, lost)
    if (most := options.max_latency_ratio) is not None:
        yield _gate("max-latency-ratio", "latency, after / before", "ratio", "at most", most, _share(report, "latency"))
    if (error := options.max_parity_error) is not None:
        errors = [file.parity.relative_error for file in report.artefacts if file.parity is not None]
        largest = max(errors, key=lambda one: (one != one, one)) if errors else None  # one that is no number first
        yield _gate("max-parity-error", "max|d|/max|y| of the files", "ratio", "at most", error, largest)
    if (size := options.max_size) is not None:
        yield _gate("max-size", "the largest file", "bytes", "at most", float(size), _largest(report))


_SAVED = {"params": "parameters", "macs": "executed MACs", "size": "bytes of the largest file", "latency": "latency"}


def _gate(name: str, figure: str, unit: str, bound: str, limit: float, got: float | None) -> GateReport:
    # What was not measured, or is no number, passes no gate.
    passed = got is not None and (got >= limit if bound == "at least" else got <= limit)
    return GateReport(name=name, figure=figure, unit=unit, bound=bound, limit=limit, got=got, passed=passed)


def _share(report: ConversionReport, cost: str) -> float | None:
    """What the converted network has of the original's; None where that is not known."""
    before, after = report.before, report.after
    if cost == "latency":
        return report.latency.ratio if report.latency is not None else None
    numbers: dict[str, tuple[float | None, float | None]] = {
        "params": (before.parameters, after.parameters),
        "macs": (before.macs_executed, after.macs_executed),
        "size": (before.file_bytes, _largest(report)),
    }
    was, now = numbers[cost]
    return now / was if was and now is not None else None


def _largest(report: ConversionReport) -> float | None:
    """Bytes of the largest file written, those of other precisions among them."""
    written = [file.bytes for file in report.artefacts]
    written += [row.bytes for row in report.precisions if row.path is not None]
    return float(max(written)) if written else None
