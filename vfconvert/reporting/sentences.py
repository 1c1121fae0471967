"""Sentences about a conversion that more than one renderer shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import AgreementReport, ConversionReport
from vfconvert.reporting.units import milliseconds, plural, seconds, shapes_text, small, whole

_UNSETTLED = "runs of one file vary by more than the files differ: time them on an idle machine (vfconvert bench)"


def sentence(text: str) -> str:
    """The text with a capital."""
    return text[:1].upper() + text[1:]


def whose_images(found: AgreementReport, report: ConversionReport) -> str:
    """Which images agreement was measured on."""
    if found.held_out:
        return plural(found.images, "held-out image")
    if report.images is not None and report.images.source == "synthetic":
        return f"{plural(found.images, 'synthetic image')}; real ones (--data) tell more"
    return f"{plural(found.images, 'image')} of the fit; none was held out"


def notes(report: ConversionReport) -> Iterator[Text]:
    """What the figures are counted in, and what they do not tell."""
    yield Text("1 MAC = one multiply-add, FLOPs = 2 x MACs, of one image.", style="dim")
    yield Text("1 MiB = 2^20 bytes, 1 KiB = 2^10 bytes.", style="dim")
    if report.after.macs_executed >= report.before.macs_executed:
        yield Text("The executed MACs have not fallen: smaller, not faster.", style="bold")
    uncounted = report.before.uncounted or report.after.uncounted
    if uncounted:
        listed = ", ".join(f"{name} ({count})" for name, count in uncounted.items())
        yield Text(f"MACs are lower bounds; not counted: {listed}.")


def speed_lines(report: ConversionReport) -> Iterator[Text]:
    """How fast, and in which forms."""
    found = report.latency
    if found is not None:
        faster = f"{found.before / found.after:.2f} times as fast" if found.ratio < 1 else "not faster here"
        faster = _doubt(report, found) or faster
        yield Text.assemble(
            "Latency: ",
            (f"{milliseconds(found.before)} -> {milliseconds(found.after)}", "bold"),
            f" (ratio {found.ratio:.3f}, {faster}; medians of {found.rounds} runs in turns, between quartiles "
            f"{milliseconds(found.spread_before)} and {milliseconds(found.spread_after)}; {_conditions(found)})",
        )
    yield from form_lines(report)


def _doubt(report: ConversionReport, found: LatencyReport) -> str:
    """What a file is that was faster by no more than runs of one file vary; empty for any other."""
    if found.settled or found.ratio >= 1:
        return ""
    plain = all(row.form in (None, "plain") for row in report.layers)
    return "as fast: ordinary convolutions" if plain else _UNSETTLED


def latency_notes(report: ConversionReport) -> Iterator[Text]:
    """How latency was measured, beside a table of it."""
    found = report.latency
    if found is not None:
        doubt = _doubt(report, found)
        said = f" {sentence(doubt)}." if doubt else ""
        yield Text(f"Medians of {found.rounds} runs in turns; {_conditions(found)}.{said}")


def form_lines(report: ConversionReport) -> Iterator[Text]:
    """How the file computes the converted layers."""
    forms = [row.form for row in report.layers if row.form is not None]
    if forms:
        counts = Counter(forms)
        measured = " (smaller, not faster here)" if report.latency is not None else ""
        measured = " (as asked)" if report.forms == "plain" else measured
        said = ", ".join(
            f"{count} as ordinary convolutions{measured}" if form == "plain" else f"{count} in {form}"
            for form, count in counts.most_common()
        )
        yield Text(f"How the file computes the converted layers: {said}.")


def _conditions(found: LatencyReport) -> str:
    return f"batch {found.batch}, {plural(found.threads, 'thread')}, {found.runtime}"


def images_lines(report: ConversionReport) -> Iterator[Text]:
    """What the network was fitted on."""
    images = report.images
    if images is None:
        return
    if images.source == "synthetic":
        yield Text(f"Fitted on {plural(images.calibration, 'synthetic image')}: {images.method}.")
        return
    held_out = f"{whole(images.held_out)} held out" if images.held_out else "none held out"
    yield Text(f"Fitted on {plural(images.calibration, 'image')} of {images.source}: {images.method}; {held_out}.")
    yield Text(f"  prepared as: {images.preprocessing}")


def parity_lines(report: ConversionReport) -> Iterator[Text]:
    """How near the first file is to the converted network."""
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


def provenance_lines(report: ConversionReport) -> Iterator[Text]:
    """Times, seed, device, versions."""
    if report.seconds:
        yield Text("Time: " + ", ".join(f"{stage} {seconds(spent)}" for stage, spent in report.seconds.items()))
    shape = shapes_text(report.input_shapes or (report.input_shape,))
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Text(f"Seed {report.seed}, device {report.device}, input {shape}; {versions}")
    if report.trusted_pickle:
        yield Text("The model file was trusted to run code (--trust-pickle).")
