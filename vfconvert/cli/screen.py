"""What the user sees: results on stdout, progress on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vfconvert.progress import Progress, no_progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID


def show(result: RenderableType) -> None:
    """Print a result on stdout, in colours where that is a terminal and NO_COLOR is not set."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the boundary, which knows what to do

    Screen(file=sys.stdout, highlight=False, emoji=False, markup=False).print(result, crop=False)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr for each stage that reports, gone at the end; none where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True, redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report


@contextmanager
def silent_libraries(*, verbose: bool) -> Iterator[None]:
    """Keep other packages' Python warnings off the screen, unless asked for by -v or Python's own -W."""
    if verbose or sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
