"""A training on the screen: a bar with how it goes and a line for each epoch on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from vfconvert.cli.screen import StageBars
from vfconvert.progress import Progress

_SECONDS = 30.0  # between plain lines


class Screen:
    """Writes to stderr; nothing when quiet."""

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self._progress, self._quiet = progress, quiet
        self._begun = self._said = time.monotonic()
        self._first: int | None = None

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        """The bar and a line beneath, or a line where there is no bar and some time has passed."""
        said = f"loss {loss:.4f}, rate {rate:.3g}, {images_per_second:.0f} images/s"
        if isinstance(self._progress, StageBars):
            self._progress.line = said
        self._progress("fine-tune", step, steps)
        if self._first is None:
            self._first, self._begun = step, time.monotonic()
        now = time.monotonic()
        if self._quiet or sys.stderr.isatty() or now - self._said < _SECONDS:
            return
        self._said = now
        left = (now - self._begun) / max(step - self._first, 1) * (steps - step)
        click.echo(f"step {step} of {steps}: {said}, {max(left, 0) / 60:.0f} min left", err=True)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """A line; after the last there is no loss to tell beneath the bars of what follows."""
        if isinstance(self._progress, StageBars):
            self._progress.line = ""
        if not self._quiet:
            from vfconvert.reporting.training import epoch_line

            click.echo(epoch_line(record), err=True)

    def note(self, line: str) -> None:
        """A warning, also when quiet."""
        click.echo(f"Warning: {line}.", err=True)
