"""What the report says of the fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from vfconvert.reporting.report import TrainingReport
from vfconvert.reporting.units import decibels, percent, plural, seconds

_SHOWN = 3  # names of images
_NORMS = {"batch": "by each batch", "frozen": "as they were"}
_UNITS = {"top1": percent, "top5": percent, "agreement": percent, "miou": percent, "psnr": decibels}


def training_lines(found: TrainingReport | None) -> Iterator[Text]:
    """How the metric went, and what was left out."""
    if found is None:
        return
    first, best, last = found.epochs[0], found.epochs[found.best_epoch], found.epochs[-1]
    values = f"{metric_text(found.metric, first[found.metric])} -> {metric_text(found.metric, best[found.metric])}"
    kept = "" if found.best_epoch == last["epoch"] else f", best after epoch {found.best_epoch} of {last['epoch']}"
    bits = "" if found.precision == "fp32" else f", {found.precision}"
    yield Text.assemble(
        f"Fine-tuned for {plural(last['epoch'], 'epoch')} ({found.optimizer}, rate {found.rate:.3g}, batch "
        f"{found.batch}, norms {_NORMS[found.norms]}{bits}; {seconds(found.seconds)}): {found.metric} on the images "
        "that it was chosen by ",
        (values, "bold"),
        f"{kept}.",
    )
    if found.best_epoch == 0:
        yield Text("No epoch was better than the fit, which is kept; give a lower --rate.", style="bold")
    if found.unreadable:
        named = ", ".join(found.unreadable[:_SHOWN]) + (", ..." if len(found.unreadable) > _SHOWN else "")
        yield Text(f"{plural(len(found.unreadable), 'image')} could not be decoded and were skipped: {named}.")


def metric_text(name: str, value: float) -> str:
    """A metric in its unit."""
    shown = _UNITS.get(name)
    if shown is None:
        return f"{value:.4f}"
    return shown(value / 100) if shown is percent else shown(value)


def epoch_line(record: Mapping[str, Any]) -> str:
    """A record of a validation on one line."""
    known = ("epoch", "step", "seconds")
    metrics = ", ".join(f"{name} {metric_text(name, value)}" for name, value in record.items() if name not in known)
    return f"epoch {record['epoch']}: {metrics}" if record["epoch"] else f"before training: {metrics}"
