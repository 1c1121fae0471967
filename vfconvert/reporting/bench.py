"""A bench for people, one line per file, and for programs. Readable from 60 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vfconvert.benching.report import BenchReport
from vfconvert.reporting.units import mebibytes, milliseconds, plural, ratio, shapes_text


def render_bench(report: BenchReport) -> Group:
    """The table, and below it what the numbers are of."""
    return Group(bench_table(report), *_notes(report))


def bench_to_json(report: BenchReport) -> str:
    """The whole report as one indented JSON object that ends in a newline; nothing is rounded."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"


def bench_table(report: BenchReport) -> Table:
    """Every file in the order given; runtimes where they differ, memory where it was measured."""
    with_runtime = len(report.runtimes) > 1
    with_memory = any(file.peak_memory_bytes is not None for file in report.files)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("file", overflow="fold")
    for heading in ("median", "spread", "ratio", "on disk"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_memory:
        table.add_column("memory", justify="right", no_wrap=True)
    if with_runtime:
        table.add_column("runtime", overflow="fold")
    for file in report.files:
        times = (milliseconds(file.median_ms / 1000), milliseconds(file.spread_ms / 1000))
        cells: list[str | Text] = [Text(file.path), *times, ratio(file.ratio, 1), mebibytes(file.bytes)]
        if with_memory:
            cells.append("-" if file.peak_memory_bytes is None else mebibytes(file.peak_memory_bytes))
        if with_runtime:
            cells.append(file.runtime)
        table.add_row(*cells)
    return table


def _notes(report: BenchReport) -> Iterator[Text]:
    rounds = plural(report.files[0].rounds, "round")
    yield Text(
        f"median and interquartile spread of {rounds} in turns; ratio = median over that of the first file.",
        style="dim",
    )
    if any(file.peak_memory_bytes is not None for file in report.files):
        yield Text("memory = peak of opening it and running it twice, beyond the runtime's own.", style="dim")
    shape = shapes_text(report.input_shapes or (report.input_shape,))
    threads = plural(report.threads, "thread")
    yield Text(f"{', '.join(report.runtimes)}; {threads}, batch {report.batch}, input {shape} of seed {report.seed}")
    yield Text(f"{report.machine.processor}, {plural(report.machine.logical_cores, 'logical core')}")
    for warning in report.warnings:
        yield Text(f"Warning: {warning}", style="yellow")
