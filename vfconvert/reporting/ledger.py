"""The ledger of kept layers as rich renderables: which share of the network stays, why, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vfconvert.reporting.report import LayerRow
from vfconvert.reporting.units import percent, plural, whole

_MOST_NAMES = 3
_UNKNOWN = "-"


def ledger(
    rows: Sequence[LayerRow], *, verbose: bool, others: int = 0, linears: Sequence[LayerRow] = ()
) -> Iterator[RenderableType]:
    """Kept layers by reason, or with `verbose` one by one, with their shares; nothing where none of `rows` is kept.

    `linears` are Linear layers that are kept besides. `others`: layers that are not among `rows`. The share of a group
    and the last line are sums of `parameters_share` and `macs_share`.
    """
    kept = [row for row in rows if row.decision == "keep"]
    if not kept and not linears:
        return
    besides = f" and {plural(len(linears), 'Linear layer')}" if linears else ""
    yield Text(f"Kept: {whole(len(kept))} of {plural(len(rows) + others, 'Conv2d layer')}{besides}", style="bold")
    kept += linears
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("layer: reason", overflow="fold")
    table.add_column("included by", overflow="fold", max_width=16)
    for group in [[row] for row in kept] if verbose else _grouped(kept):
        first = group[0]
        reason = Text.assemble((_names(group), "bold"), f": {first.reason or first.code or 'no reason given'}")
        table.add_row(*_shares(group), reason, Text(first.flag or "no flag"))
    yield table
    parameters, macs = _shares(kept)
    known = all(row.macs_share is not None for row in kept)
    said = f"{'' if known else 'at least '}{macs}" if macs != _UNKNOWN else "an unknown share"
    yield Text(f"kept: {parameters} of the parameters, {said} of the MACs", style="bold")
    if not known:
        yield Text("- where a layer's runs are not known.", style="dim")


def _shares(rows: Sequence[LayerRow]) -> tuple[str, str]:
    macs = [row.macs_share for row in rows if row.macs_share is not None]
    return percent(fsum(row.parameters_share for row in rows)), percent(fsum(macs)) if macs else _UNKNOWN


def _names(rows: Sequence[LayerRow]) -> str:
    named = ", ".join(row.name for row in rows[:_MOST_NAMES])
    rest = len(rows) - _MOST_NAMES
    return named if rest <= 0 else f"{named} and {whole(rest)} more"


def _grouped(rows: Sequence[LayerRow]) -> list[list[LayerRow]]:
    """Rows of one reason and flag together, those of most parameters first."""
    groups: dict[tuple[str | None, ...], list[LayerRow]] = {}
    for row in rows:
        groups.setdefault((row.code, row.reason, row.flag), []).append(row)
    return sorted(groups.values(), key=lambda group: -fsum(row.parameters_share for row in group))
