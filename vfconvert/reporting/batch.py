"""The summary of a batch, one row for every model: for programs, for people, and for a pull request.

`rows_of` gathers plain values from the records; what renders them rounds and adds nothing but the totals.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vfconvert.batching.items import Item
from vfconvert.batching.records import Record, files_of
from vfconvert.reporting.markdown import code, plain, table
from vfconvert.reporting.units import is_share, mebibytes, percent, plural, seconds, whole

SCHEMA_VERSION = 1
STATES = ("converted", "gate failed", "failed", "pending")
_HEADINGS = ("model", "state", "parameters", "ratio", "bytes", "ratio", "latency", "agreement", "took")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model of a batch. What is not known is None. Bytes are those of all written files; latency is a ratio.

    `agreement` is a share where `measure` says so, else in the units of `measure`.
    """

    name: str
    model: str
    state: str
    exit_code: int | None = None
    error: str = ""
    seconds: float | None = None
    peak_bytes: int | None = None
    parameters_before: int | None = None
    parameters_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    latency_ratio: float | None = None
    measure: str | None = None
    agreement: float | None = None
    files: tuple[str, ...] = ()


def rows_of(records: Iterable[tuple[Item, Record | None]]) -> tuple[Row, ...]:
    """The rows of a batch; an item with no record is pending."""
    return tuple(_row(item, record) for item, record in records)


def _row(item: Item, record: Record | None) -> Row:
    if record is None:
        return Row(name=item.name, model=str(item.model), state="pending")
    report = record.report or {}

    def read(*keys: str) -> Any:
        value: Any = report
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    latency = read("latency")
    return Row(
        name=item.name,
        model=str(item.model),
        state=record.state,
        exit_code=record.exit_code,
        error=record.error,
        seconds=record.seconds,
        peak_bytes=record.peak_bytes,
        parameters_before=read("before", "parameters"),
        parameters_after=read("after", "parameters"),
        bytes_before=read("before", "file_bytes"),
        bytes_after=read("after", "file_bytes"),
        latency_ratio=latency["after"] / latency["before"] if latency else None,
        measure=read("agreement", "measure"),
        agreement=read("agreement", "value"),
        files=tuple(path for path, _ in files_of(report)),
    )


def counts_of(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows are in each state, the states in their order."""
    counts = Counter(row.state for row in rows)
    return {state: counts[state] for state in STATES}


def counted(rows: Sequence[Row]) -> str:
    """How many rows in each state that there is, as in `1 converted, 2 failed`."""
    return ", ".join(f"{count} {state}" for state, count in counts_of(rows).items() if count)


def headline(rows: Sequence[Row]) -> str:
    """One sentence: how many models, and how many in each state that there is."""
    return f"{plural(len(rows), 'model')}: {counted(rows)}"


def row_to_json(row: Row) -> str:
    """One line of JSON."""
    return json.dumps(asdict(row), ensure_ascii=True, allow_nan=False)


def to_json(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """The whole summary as indented JSON that ends in a newline."""
    plain = {
        "schema_version": SCHEMA_VERSION,
        "versions": dict(versions),
        "counts": counts_of(rows),
        "models": [asdict(row) for row in rows],
    }
    return json.dumps(plain, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def numbers(row: Row) -> tuple[float | None, ...]:
    """What the cells after the first two say, unrounded, None where it is not known."""
    return (
        row.parameters_after,
        _ratio(row.parameters_after, row.parameters_before),
        row.bytes_after,
        _ratio(row.bytes_after, row.bytes_before),
        row.latency_ratio,
        row.agreement,
        row.seconds,
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row as texts, in the order of the headings; empty where nothing is known."""
    shares = row.measure is not None and is_share(row.measure)
    shown: tuple[Callable[[Any], str], ...] = (
        *(whole, _three_digits, mebibytes, _three_digits, _three_digits),
        *(percent if shares else "{:.2f}".format, seconds),
    )
    known = zip(shown, numbers(row), strict=True)
    return (row.name, row.state, *("" if value is None else show(value) for show, value in known))


def _ratio(after: int | None, before: int | None) -> float | None:
    return after / before if after is not None and before else None


def _three_digits(value: float) -> str:
    return f"{value:.3f}"


def headings() -> tuple[str, ...]:
    """Of the columns."""
    return _HEADINGS


def to_markdown(rows: Sequence[Row]) -> str:
    """A heading, a table, and the errors in full."""
    blocks = [f"# {headline(rows)}"]
    blocks.append(table(_HEADINGS, [(code(row.name), *map(plain, cells(row)[1:])) for row in rows], texts=2))
    failures = [f"* {code(row.name)} (code {row.exit_code}): {plain(row.error)}" for row in rows if row.error]
    if failures:
        blocks += ["## What failed", "\n".join(failures)]
    return "\n\n".join(blocks) + "\n"
