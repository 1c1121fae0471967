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
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


def show(result: RenderableType) -> None:
    """Print a result on stdout, in colours where that is a terminal and NO_COLOR is not set."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the boundary, which knows what to do

    Screen(file=sys.stdout, highlight=False, emoji=False, markup=False).print(result, crop=False)


class StageBars:
    """A bar for each stage that reports, a `Progress`; and `line`, which stands beneath all of them."""

    def __init__(self) -> None:
        self.line = ""
        self.bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage."""
        if self.bars is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage)
        self.bars.update(self._tasks[stage], completed=done, total=total or None)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr for each stage that reports, gone at the end; none where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    stages = StageBars()

    class LinedBars(Bars):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if stages.line:
                yield Text(stages.line, no_wrap=True, overflow="ellipsis")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with LinedBars(
        *columns, TimeRemainingColumn(), console=console, transient=True, redirect_stdout=False
    ) as stages.bars:
        yield stages


@contextmanager
def silent_libraries(*, verbose: bool) -> Iterator[None]:
    """Keep other packages' Python warnings off the screen, unless asked for by -v or Python's own -W."""
    if verbose or sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
