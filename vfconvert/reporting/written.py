"""A report of a conversion that is in memory, with the files that were written of it later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vfconvert.reporting.budget import missed
from vfconvert.reporting.cautions import rounded
from vfconvert.reporting.report import ArtefactReport, BudgetReport, ConversionReport, FileReport
from vfconvert.verification import FLOAT32_TOLERANCE


def with_files(report: ConversionReport, files: Sequence[ArtefactReport]) -> ConversionReport:
    """The report of a conversion without files as it is with these, of which the first is the output."""
    if not files:
        return report
    first = files[0]
    budget = _reached(report, first)
    return replace(
        report,
        artefacts=tuple(files),
        output=FileReport(path=first.path, bytes=first.bytes, sha256=first.sha256),
        parity=first.parity,
        after=replace(report.after, file_bytes=first.bytes),
        budget=budget,
        warnings=tuple(dict.fromkeys((*missed(budget), *report.warnings, *rounded(files, FLOAT32_TOLERANCE)))),
    )


def _reached(report: ConversionReport, file: ArtefactReport) -> BudgetReport | None:
    """The targets with what the file has; the latency is known without one."""
    if report.budget is None:
        return None
    found = {
        "params": float(report.after.parameters),
        "macs": float(report.after.macs_executed),
        "size": float(file.bytes),
    }
    targets = (
        replace(row, reached=found.get(row.target.partition("=")[0], row.reached)) for row in report.budget.targets
    )
    return replace(report.budget, targets=tuple(targets))
