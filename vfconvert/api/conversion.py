"""A conversion from Python: a network in memory or in a file goes in, a `Conversion` comes out.

Nothing is written but by `Conversion.export`, and by the options that name a file.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from torch import nn

from vfconvert.api.asking import Data, Model, asked
from vfconvert.delivery import Delivery, deliver, deliver_precision
from vfconvert.errors import ExportError, UncheckableGateError
from vfconvert.formats import SUFFIXES, format_of
from vfconvert.gates import read_bytes, read_saving
from vfconvert.gating import gated, refuse_failed
from vfconvert.keyword_values import read_limit, read_limits, read_named, read_one_of, read_value, shown
from vfconvert.keywords import CONVERT
from vfconvert.network_plan import NetworkPlan
from vfconvert.nn.several_inputs import separated
from vfconvert.options import OPSETS, ConversionOptions
from vfconvert.overrides import Override
from vfconvert.pipeline import converted
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.latency import PrecisionReport
from vfconvert.reporting.report import ArtefactReport, ConversionReport
from vfconvert.reporting.units import judged_value, metric
from vfconvert.reporting.writing import write_report
from vfconvert.reporting.written import with_files
from vfconvert.targets import Target

Written = ArtefactReport | PrecisionReport
_PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(kw_only=True, eq=False, repr=False)
class Conversion:
    """A converted network.

    `model` is the trainable network with its `VersatileConv2d` layers, `inference` the one with shared sums that files
    are made from (the same where control flow cannot be traced); both are in evaluation mode and on the CPU, and the
    parameters of `model` require gradients. `plan` is what became of every layer. `report` has every file that `export`
    has written, and the gates that `check` has judged since the last of them.
    """

    model: nn.Module
    inference: nn.Module
    plan: NetworkPlan
    report: ConversionReport
    _bare: ConversionReport
    _delivery: Delivery
    _options: ConversionOptions
    _files: dict[str, Written] = field(default_factory=dict)
    _tables: dict[str, tuple[PrecisionReport, ...]] = field(default_factory=dict)  # by the path of one of their files

    def __repr__(self) -> str:
        sizes = f"{metric(self.report.before.parameters)} -> {metric(self.report.after.parameters)} parameters"
        if (found := self.report.agreement) is None:
            return f"Conversion({sizes})"
        return f"Conversion({sizes}, {found.measure} {judged_value(found.measure, found.value)})"

    @overload
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        dynamic_size: bool = False,
        opset: int = OPSETS[0],
        precision: Literal["fp32"] = "fp32",
    ) -> ArtefactReport: ...

    @overload
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        dynamic_size: bool = False,
        opset: int = OPSETS[0],
        precision: Literal["fp16", "int8"],
    ) -> PrecisionReport: ...

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        dynamic_size: bool = False,
        opset: int = OPSETS[0],
        precision: str = "fp32",
    ) -> Written:
        """Write one file: verified by its own runtime, then renamed to its name.

        `format` is "onnx", "torchscript", "pt2" or "safetensors"; None: by the suffix. `precision` "fp16" and "int8"
        (calibrated on the images of the conversion) write ONNX; what returns then has the file's agreement with the
        original network, and `report.precisions` both networks in both precisions, timed in turns.

        Raises `ExportError`, `ParityError` and `UnwritableOutputError`; then there is no such file. `TypeError` and
        `ValueError` for an argument of another kind.
        """
        target: Path = read_value("export(): path", "Path", path)
        read_value("export(): format", "str | None", format)
        read_one_of("export(): precision", _PRECISIONS, precision)
        name = format if format is not None else format_of(target)
        if name not in SUFFIXES:
            raise ExportError(
                f"{target}: the format is not known (got {format or target.suffix!r}, expected one of "
                f"{', '.join(SUFFIXES)}); say format="
            )
        if precision != "fp32" and name != "onnx":
            raise ExportError(f"{target}: got {precision} as {name}, expected onnx, the one format that has it")
        number = read_value("export(): opset", "int", opset)
        if not OPSETS[0] <= number <= OPSETS[1]:
            raise ExportError(f"export(): opset: got {number}, expected {OPSETS[0]} to {OPSETS[1]}")
        if number != OPSETS[0] and name != "onnx":
            raise ExportError(f"{target}: got opset={number} for {name}, which has none; leave it out")
        options = dataclasses.replace(
            self._options,
            output=target,
            formats=(name,),
            dynamic_size=read_value("export(): dynamic_size", "bool", dynamic_size),
            opset=number,
            precision="fp16" if precision == "fp16" else "fp32",
            int8=precision == "int8",
        )
        written: Written
        with ExitStack() as outputs:
            if precision == "fp32":
                (written,), _ = deliver(self._delivery, options, outputs)
            else:
                rows = deliver_precision(self._delivery, options, precision, target, outputs)
                (written,) = (row for row in rows if row.path is not None)
                self._tables[str(target)] = rows
        self._files[str(target)] = written
        self.report = self._with(tuple(self._files.values()))
        return written

    def check(
        self,
        *,
        files: Sequence[Written] | None = None,
        fail_under_saving: Mapping[str, str | float] | None = None,
        fail_over_drop: float | None = None,
        max_latency_ratio: float | None = None,
        max_parity_error: float | None = None,
        max_size: int | str | None = None,
    ) -> ConversionReport:
        """The report with `files` that `export` returned (None: all of them), and the command's gates judged on it.

        Savings are like `{"params": "40%"}`, where numbers are shares of the original; the drop is in points, the size
        in bytes or like "5MB". What was not measured passes no gate: bytes are those of `files`, parity that of those
        in float32, latency takes a conversion that measures. Raises `GateError` that names each failed gate and has the
        report, `UncheckableGateError` for a limit that no gate has, `ValueError` for one that cannot be read,
        `TypeError` for one of another kind.
        """
        options = dataclasses.replace(
            self._options,
            fail_under_saving=read_limits("check(): fail_under_saving", read_saving, _or_none(fail_under_saving)),
            fail_over_drop=read_limit("check(): fail_over_drop", fail_over_drop),
            max_latency_ratio=read_limit("check(): max_latency_ratio", max_latency_ratio),
            max_parity_error=read_limit("check(): max_parity_error", max_parity_error),
            max_size=_bytes_of(max_size),
            keep_on_fail=True,
        )
        if not options.gated:
            raise UncheckableGateError("check(): no gate was given, and nothing would be judged")
        report = gated(self._with(tuple(self._files.values()) if files is None else _files_of(files)), options)
        self.report = dataclasses.replace(self.report, gates=report.gates)
        refuse_failed(report)
        return report

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write `report` in the form of the suffix: .html, .md, .json or .csv. Raises `UnwritableOutputError`."""
        write_report(self.report, read_value("save_report(): path", "Path", path))

    def _with(self, files: Sequence[Written]) -> ConversionReport:
        """The report with these files, each of another precision with the table that it stands in."""
        rows: dict[tuple[str, str | None], PrecisionReport] = {}
        for file in files:
            if isinstance(file, PrecisionReport):
                rows |= {(row.name, row.path): row for row in (*self._tables.get(str(file.path), ()), file)}
        report = with_files(self._bare, [file for file in files if isinstance(file, ArtefactReport)])
        return dataclasses.replace(report, precisions=tuple(rows.values()))


def _or_none(limits: Mapping[str, str | float] | None) -> Mapping[str, str | float]:
    return {} if limits is None else limits


def _bytes_of(size: int | str | None) -> int | None:
    """A limit in bytes. Raises `TypeError`, and `ValueError` for a text that is no size."""
    if isinstance(size, str):
        return read_named("check(): max_size", read_bytes, size)
    found: int | None = read_value("check(): max_size", "int | None", size, expected="bytes, a size like '5MB'")
    return found


def _files_of(files: Any) -> tuple[Written, ...]:
    """What `export` returned. Raises `TypeError` for anything else."""
    found = tuple(files) if isinstance(files, Iterable) and not isinstance(files, str) else (files,)
    if wrong := [file for file in found if not isinstance(file, Written)]:
        raise TypeError(f"check(): files: got {shown(wrong[0])}, expected what export() returned, in a list")
    return found


def convert(
    model: Model,
    *,
    spatial: bool = False,
    channel: bool = False,
    targets: Mapping[str, str | float] | Sequence[Target] = (),
    layers: Mapping[str, str] | Sequence[Override] = (),
    data: Data = None,
    epochs: int = 0,
    progress: Progress = no_progress,
    **settings: Any,
) -> Conversion:
    """Convert a network: fit versatile filters to it, and fine-tune it where `epochs` are given.

    `model` is a module, which is left as it is, or a path to any file that the command reads. `targets` are limits like
    `{"params": "50%", "latency": 0.8}`, where numbers are shares of the original; `layers` decide by name, like
    `{"layer4.*": "spatial"}`. `data` is what `--data` takes; or a tensor of images `(N, C, H, W)` as the network is
    given them; or a dataset (of such tensors or of PIL images, alone or with a class), or a loader that reads all of
    one as it is. Of a network of several inputs the items of a dataset are tuples of as many, or such a tensor has the
    channels of all, in order, and `input_shape` is a sequence of shapes. Without `data`, images are made up.
    `progress(stage, done, total)` is told how far long stages are. `settings` are further fields of `ConversionOptions`
    and of `TrainingOptions`, but for those of files, gates and reports; `plan` may be a `NetworkPlan` or a path.

    Raises `TypeError` for a setting that does not exist or is of another kind, `ValueError` for a text that cannot be
    read and where settings say nothing beside each other, and the errors of `vfconvert.errors`.
    """
    stated = {"spatial": spatial, "channel": channel, "epochs": epochs, **settings}
    found = asked(CONVERT, model, stated, targets=targets, layers=layers, data=data, progress=progress)
    options = found.options
    scratch = options.training.epochs > 0 and options.training.checkpoints is None
    with tempfile.TemporaryDirectory(prefix="vfconvert-") if scratch else nullcontext("") as folder:
        run = options
        if scratch:  # of a run that nobody means to go on with
            place = dataclasses.replace(options.training, checkpoints=Path(folder))
            run = dataclasses.replace(options, training=place)
        done = converted(run, progress, given=found.given)
    if done is None or done.delivery is None:
        raise ValueError("convert() works in one process; train in several by the command line under torchrun")
    delivery, report = done.delivery, done.report
    if scratch and report.training is not None:
        report = dataclasses.replace(report, training=dataclasses.replace(report.training, folder=""))
    return Conversion(
        model=separated(delivery.student).requires_grad_(),  # it was fitted as a constant
        inference=separated(delivery.inference.model),
        plan=done.plan,
        report=report,
        _bare=report,
        _delivery=delivery,
        _options=options,
    )
