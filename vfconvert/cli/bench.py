"""Latency of model files side by side."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from vfconvert.cli.group import SectionCommand, SectionOption
from vfconvert.cli.screen import show, silent_libraries
from vfconvert.cli.values import SHAPE, SIZE, one_or_all

RUNTIMES = ("onnxruntime", "openvino", "torch")
_input = partial(click.option, cls=SectionOption, section="Input")
_running = partial(click.option, cls=SectionOption, section="How it is run")
_output = partial(click.option, cls=SectionOption, section="Output")


@click.command(cls=SectionCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_input("--batch", type=int, default=1, show_default=True, metavar="N", help="Inputs in one run.")
@_input("--size", type=SIZE, metavar="N|HxW", help="Height and width, where a file takes any.")
@_input(
    "--input-shape",
    multiple=True,
    type=SHAPE,
    metavar="C,H,W",
    help="Shape of the input, where no file tells it (TorchScript); of several inputs, once for each.",
)
@_running("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads of an operator, exactly.")
@_running(
    "--runtime",
    type=click.Choice(RUNTIMES),
    help="Run all files in this one.  [default: onnxruntime for .onnx, torch for the others]",
)
@_running("--rounds", type=int, default=30, show_default=True, metavar="N", help="Timed runs of every file, at most.")
@_running("--warm-up", type=int, default=3, show_default=True, metavar="N", help="Runs before those, untimed.")
@_running("--seconds", type=float, default=60.0, show_default=True, metavar="S", help="Start no round after this long.")
@_running(
    "--memory/--no-memory", default=True, show_default=True, help="Measure peak memory, in a process for each file."
)
@_output("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
@_output("-q", "--quiet", is_flag=True, help="Say nothing while it runs.")
def bench(files: tuple[Path, ...], as_json: bool, quiet: bool, **settings: Any) -> None:
    """Time FILES in turns on the CPU, and compare each with the first.

    Runs ONNX files (.onnx), torch.export programs (.pt2) and TorchScript archives on the same random input. Files in
    one line are timed in the same minutes of the same machine, so that their ratio holds where a single time does not:
    name a file twice to see how far the ratio of equals is from 1. OpenVINO: pip install vfconvert[openvino].
    """
    settings["input_shape"] = one_or_all(settings["input_shape"])
    with silent_libraries(verbose=False):
        from vfconvert.benching import bench as run
        from vfconvert.reporting.bench import bench_to_json, render_bench

        if not quiet and sys.stderr.isatty():  # no bar: its refreshes would take time from what is timed
            click.echo(f"Timing in turns, up to {settings['seconds']:g} s ...", err=True)
        report = run(files, **settings)
    if as_json:
        click.echo(bench_to_json(report), nl=False)
    else:
        show(render_bench(report))
