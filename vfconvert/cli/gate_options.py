"""The options that set limits to the measured result, each of its field's name in `ConversionOptions`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from vfconvert.cli.group import SectionOption
from vfconvert.cli.values import BYTES, FINITE, SAVING, FiniteRange

_gate = partial(click.option, cls=SectionOption, section="Gates (exit code 3 where one fails)")

GATES: tuple[Callable[[Any], Any], ...] = (
    _gate(
        "--fail-under-saving",
        multiple=True,
        type=SAVING,
        metavar="COST=SHARE",
        help="Fail where less of the original's params, macs, size or latency is saved, as in params=40%; repeatable.",
    ),
    _gate(
        "--fail-over-drop",
        type=FINITE,
        metavar="POINTS",
        help="Fail where more points are lost, of accuracy where images are labelled, else of agreement, on the images "
        "that judge; --max-drop searches a plan on others.",
    ),
    _gate(
        "--max-latency-ratio",
        type=FiniteRange(min=0, min_open=True),
        metavar="X",
        help="Fail where the file takes more than so many times the original's latency, as in 0.8.",
    ),
    _gate(
        "--max-parity-error",
        type=FINITE,
        metavar="X",
        help="Fail where a file differs from the converted network by more, as max|d|/max|y|, as in 1e-5.",
    ),
    _gate("--max-size", type=BYTES, metavar="BYTES", help="Fail where a file is larger, as in 5MB or 800KiB."),
    _gate(
        "--keep-on-fail/--discard-on-fail",
        default=False,
        show_default=True,
        help="Write the files although a gate failed; reports are written either way.",
    ),
    _gate(
        "--junit",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Write gates and the comparison of each file as JUnit XML, a test case each.",
    ),
)
