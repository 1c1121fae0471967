"""The report as one page: everything is in the file."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from pathlib import Path
from typing import Any

from vfconvert.reporting.budget_lines import budget_lines
from vfconvert.reporting.charts import training_charts
from vfconvert.reporting.figures import converted_of, figures, further_files
from vfconvert.reporting.gates import gate_text
from vfconvert.reporting.html_layers import layer_view
from vfconvert.reporting.html_page import rendered
from vfconvert.reporting.html_samples import sample_view, samples_note
from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import ArtefactReport, ConversionReport, FileReport, TrainingReport
from vfconvert.reporting.sentences import (
    form_lines,
    images_lines,
    latency_notes,
    notes,
    parity_lines,
    sentence,
    whose_images,
)
from vfconvert.reporting.training import metric_text, training_lines
from vfconvert.reporting.units import judged_value, mebibytes, milliseconds, percent, ratio, seconds, shapes_text

_UNKNOWN = "-"


def to_html(report: ConversionReport) -> str:
    """The whole report as one HTML document."""
    from markupsafe import Markup

    parts = _parts(report)
    return rendered(
        "report.html",
        charts=[{"title": chart.title, "svg": Markup(chart.svg)} for chart in training_charts(report.training)],
        bar=bar,
        sections=list(_sections(parts)),
        **parts,
    )


def bar(share: float) -> str:
    """The width of a bar for a share of 1."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _sections(parts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "figures", "Figures"
    if parts["gates"]:
        yield "gates", "Gates"
    if parts["samples"]:
        yield "samples", "Answers"
    yield "layers", "Layers"
    if parts["kept"]:
        yield "kept", "Kept layers"
    if parts["report"].training:
        yield "training", "Training"
    if parts["latency"] or parts["precisions"] or parts["speed"]:
        yield "speed", "Speed"
    yield "made", "How this was made"


def _parts(report: ConversionReport) -> dict[str, Any]:
    named = report.output if report.output is not None else report.input
    return {
        "report": report,
        "title": Path(named.path).name,
        "lead": _lead(report),
        "figures": list(figures(report)),
        "gates": [(gate.name, gate_text(gate), gate.passed) for gate in report.gates],
        "discarded": [(file.path, mebibytes(file.bytes)) for file in report.discarded],
        "notes": [line.plain for line in notes(report)],
        "targets": [line.plain.strip() for line in budget_lines(report.budget)],
        "samples": [sample_view(sample) for sample in report.samples],
        "samples_note": samples_note(report),
        **layer_view(report),
        **_kept(report),
        **_training(report.training),
        "latency": _latency(report.latency),
        "precisions": [
            (row.name, mebibytes(row.bytes), milliseconds(row.seconds), judged_value(row.measure, row.value))
            for row in report.precisions
        ],
        "speed": [line.plain for line in (*latency_notes(report), *form_lines(report))],
        "made": [line.plain.strip() for line in (*images_lines(report), *parity_lines(report))],
        "files": _files(report),
        "environment": _environment(report),
    }


def _lead(report: ConversionReport) -> str:
    before, after, found = report.before, report.after, report.agreement
    said = [f"{ratio(after.parameters, before.parameters)} of the parameters"]
    said.append(f"{ratio(after.macs_executed, before.macs_executed)} of the multiply-adds")
    if report.latency is not None and report.latency.settled:
        said.append(f"{ratio(report.latency.after, report.latency.before)} of the time")
    sizes = f"{', '.join(said[:-1])} and {said[-1]}"
    if report.dry:
        return f"A dry run: with {converted_of(report)} converted it would have {sizes}. Nothing was written."
    lead = f"{converted_of(report)} converted: {sizes}."
    if found is None:
        return lead
    value = judged_value(found.measure, found.value)
    return f"{lead} {sentence(found.measure)} with the original: {value} on {whose_images(found, report)}."


def _kept(report: ConversionReport) -> dict[str, Any]:
    rows = [row for row in report.layers if row.decision == "keep"]
    macs = [row.macs_share for row in rows if row.macs_share is not None]
    known = len(macs) == len(rows)
    total = (f"{'' if known else 'at least '}{percent(fsum(macs))}") if macs else _UNKNOWN
    return {
        "kept": [
            {
                "name": row.name,
                "reason": row.reason or row.code or "no reason given",
                "flag": row.flag,
                "parameters": percent(row.parameters_share),
                "macs": _UNKNOWN if row.macs_share is None else percent(row.macs_share),
            }
            for row in rows
        ],
        "kept_total": (percent(fsum(row.parameters_share for row in rows)), total),
    }


def _training(found: TrainingReport | None) -> dict[str, Any]:
    if found is None:
        return {"training": [], "metrics": [], "epochs": []}
    names = [name for name in found.epochs[0] if name not in ("epoch", "step", "seconds")]
    return {
        "training": [line.plain for line in training_lines(found)],
        "metrics": names,
        "epochs": [
            {
                "number": record["epoch"],
                "step": record.get("step", _UNKNOWN),
                "metrics": [metric_text(name, record[name]) if name in record else _UNKNOWN for name in names],
                "best": record["epoch"] == found.best_epoch,
            }
            for record in found.epochs
        ],
    }


def _latency(found: LatencyReport | None) -> list[tuple[str, ...]]:
    if found is None:
        return []
    before = ("original", milliseconds(found.before), milliseconds(found.spread_before), ratio(1, 1))
    after = ("written file", milliseconds(found.after), milliseconds(found.spread_after), ratio(found.ratio, 1))
    return [before, after]


def _files(report: ConversionReport) -> list[dict[str, str | None]]:
    listed: list[tuple[str, FileReport | ArtefactReport]] = [("read", report.input)]
    listed += [(f"written, {file.format}", file) for file in report.artefacts]
    rows: list[dict[str, str | None]] = [
        {"what": what, "path": file.path, "bytes": mebibytes(file.bytes), "sha256": file.sha256}
        for what, file in listed
    ]
    for row in further_files(report):
        rows.append({"what": f"written, {row.name}", "path": row.path, "bytes": mebibytes(row.bytes), "sha256": ""})
    return rows


def _environment(report: ConversionReport) -> list[tuple[str, str]]:
    shape = shapes_text(report.input_shapes or (report.input_shape,))
    listed = [("input", shape), ("seed", str(report.seed)), ("device", report.device), *report.versions.items()]
    if report.seconds:
        listed.append(("time", ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items())))
    if report.trusted_pickle:
        listed.append(("code", "the model file was trusted to run code (--trust-pickle)"))
    return listed
