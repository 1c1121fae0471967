"""How far a batch is: a live table on a terminal, a line for every end elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

from vfconvert.reporting.units import plural, seconds

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table as RichTable

    from vfconvert.batching.items import Item
    from vfconvert.batching.running import Progressed

_REFRESH_SECONDS = 0.5
_SHOWN = 12  # rows of those that ended


class Table:
    """What runs and what ended last, with the counts above."""

    def __init__(self, items: Sequence[Item], *, quiet: bool) -> None:
        self._total, self._quiet = len(items), quiet
        self._running: dict[str, float] = {}
        self._ended: list[tuple[str, str, str]] = []
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Table:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # No thread of its own: the pool forks.
            self._live = Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def told(self, step: Progressed) -> None:
        """An item began, ended or was skipped."""
        name, record = step.item.name, step.record
        if record is None:
            self._running[name] = time.monotonic()
        else:
            self._running.pop(name, None)
            state = "done before" if step.skipped else record.state
            self._ended.append((name, state, record.error or seconds(record.seconds)))
            if self._live is None and not self._quiet:
                click.echo(f"{len(self._ended)}/{self._total} {': '.join(self._ended[-1])}", err=True)
        self.refresh()

    def refresh(self) -> None:
        """Draw, now and then."""
        if self._live is not None and time.monotonic() - self._drawn >= _REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        title = f"{len(self._ended)} of {plural(self._total, 'model')} ended, {len(self._running)} running"
        table = RichTable(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("model", "state", ""):
            table.add_column(heading, overflow="ellipsis", no_wrap=heading != "")
        for row in self._ended[-_SHOWN:]:
            table.add_row(*map(Text, row))
        for name, begun in self._running.items():
            table.add_row(Text(name), Text("running", style="bold"), Text(seconds(time.monotonic() - begun)))
        return table
