"""The front door for Python: a network in memory or in a file goes in, a `Conversion` comes out.

Nothing is written but by `Conversion.export`, and by the options that name a file.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vfconvert.data.given import given_examples
from vfconvert.delivery import Delivery, deliver
from vfconvert.errors import ExportError, UncheckableGateError
from vfconvert.formats import SUFFIXES, format_of
from vfconvert.gates import read_bytes, read_saving
from vfconvert.gating import gated, refuse_failed
from vfconvert.keywords import (
    check_settings,
    read_layers,
    read_limit,
    read_limits,
    read_named,
    read_settings,
    read_targets,
)
from vfconvert.loading.in_memory import loaded_module
from vfconvert.nn.several_inputs import separated
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override
from vfconvert.pipeline import converted
from vfconvert.preparation import Given
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.report import ArtefactReport, ConversionReport
from vfconvert.reporting.units import judged_value, metric
from vfconvert.reporting.writing import write_report
from vfconvert.reporting.written import with_files
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions

_OF_FILES = ("arch", "arch_args", "trust_pickle")


@dataclass(kw_only=True, eq=False, repr=False)
class Conversion:
    """A converted network.

    `model` is the trainable network with its `VersatileConv2d` layers, `inference` the one with shared sums that files
    are made from (the same where control flow cannot be traced); both are in evaluation mode and on the CPU. `report`
    has every file that `export` has written, and the gates that `check` has judged since the last of them.
    """

    model: nn.Module
    inference: nn.Module
    report: ConversionReport
    _bare: ConversionReport
    _delivery: Delivery
    _options: ConversionOptions
    _files: dict[str, ArtefactReport] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = f"{metric(self.report.before.parameters)} -> {metric(self.report.after.parameters)} parameters"
        if (found := self.report.agreement) is None:
            return f"Conversion({sizes})"
        return f"Conversion({sizes}, {found.measure} {judged_value(found.measure, found.value)})"

    def export(
        self, path: str | Path, *, format: str | None = None, dynamic_size: bool = False, opset: int = 18
    ) -> ArtefactReport:
        """Write one file: verified by its own runtime, then renamed to its name.

        `format` is "onnx", "torchscript", "pt2" or "safetensors"; None: by the suffix. Raises `ExportError`,
        `ParityError` and `UnwritableOutputError`; then there is no such file.
        """
        path = Path(path)
        name = format if format is not None else format_of(path)
        if name not in SUFFIXES:
            raise ExportError(
                f"{path}: the format is not known (got {format or path.suffix!r}, expected one of "
                f"{', '.join(SUFFIXES)}); say format="
            )
        options = dataclasses.replace(
            self._options,
            output=path,
            formats=(name,),
            dynamic_size=dynamic_size,
            opset=opset,
        )
        with ExitStack() as outputs:
            (written,), _ = deliver(self._delivery, options, outputs)
        self._files[written.path] = written
        self.report = with_files(self._bare, tuple(self._files.values()))
        return written

    def check(
        self,
        *,
        files: Sequence[ArtefactReport] | None = None,
        fail_under_saving: Mapping[str, str | float] | None = None,
        fail_over_drop: float | None = None,
        max_latency_ratio: float | None = None,
        max_parity_error: float | None = None,
        max_size: int | str | None = None,
    ) -> ConversionReport:
        """The report with `files` that `export` returned (None: all of them), and the command's gates judged on it.

        Savings are like `{"params": "40%"}`, where numbers are shares of the original; the drop is in points, the size
        in bytes or like "5MB". What was not measured passes no gate: bytes and parity are those of `files`, latency
        takes a conversion that measures. Raises `GateError` that names each failed gate and has the report,
        `UncheckableGateError` for a limit that no gate has, `ValueError` for one that cannot be read, `TypeError`
        for one of another kind.
        """
        options = dataclasses.replace(
            self._options,
            fail_under_saving=read_limits("check(): fail_under_saving", read_saving, fail_under_saving or {}),
            fail_over_drop=read_limit("check(): fail_over_drop", fail_over_drop),
            max_latency_ratio=read_limit("check(): max_latency_ratio", max_latency_ratio),
            max_parity_error=read_limit("check(): max_parity_error", max_parity_error),
            max_size=read_named("check(): max_size", read_bytes, max_size) if isinstance(max_size, str) else max_size,
            keep_on_fail=True,
        )
        if not options.gated:
            raise UncheckableGateError("check(): no gate was given, and nothing would be judged")
        judged = tuple(self._files.values()) if files is None else tuple(files)
        report = gated(with_files(self._bare, judged), options)
        self.report = dataclasses.replace(self.report, gates=report.gates)
        refuse_failed(report)
        return report

    def save_report(self, path: str | Path) -> None:
        """Write `report` in the form of the suffix: .html, .md, .json or .csv. Raises `UnwritableOutputError`."""
        write_report(self.report, Path(path))


def convert(
    model: nn.Module | str | Path,
    *,
    spatial: bool = False,
    channel: bool = False,
    targets: Mapping[str, str | float] | Sequence[Target] = (),
    layers: Mapping[str, str] | Sequence[Override] = (),
    data: str | Path | Tensor | Any = None,
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
    channels of all, in order, and `input_shape` is a sequence of shapes. Without it, images are made up. `settings` are
    further fields of `ConversionOptions` and of `TrainingOptions`, but for those of files, gates and reports.

    Raises `TypeError` for a setting that does not exist or is of another kind, `ValueError` for a text that cannot be
    read and where settings say nothing beside each other, and the errors of `vfconvert.errors`.
    """
    stated = {"spatial": spatial, "channel": channel, "epochs": epochs, **settings}
    own, training = read_settings(stated)
    if isinstance(model, nn.Module) and (given := [name for name in _OF_FILES if settings.get(name)]):
        raise TypeError(f"convert(): {given[0]} says how a file is read, but a network was given; drop it")
    loaded = loaded_module(model) if isinstance(model, nn.Module) else None
    examples = None if data is None or isinstance(data, (str, Path)) else given_examples(data)
    options = ConversionOptions(
        model=loaded.path if loaded is not None else Path(str(model)),
        targets=read_targets(targets),
        layers=read_layers(layers),
        data=Path(data) if isinstance(data, (str, Path)) else None,
        formats=(),
        training=TrainingOptions(**training),
        command="vfconvert.convert",
        **own,
    )
    check_settings(options, (*stated, "layers", "targets"), has_images=data is not None)
    scratch = options.training.epochs > 0 and options.training.checkpoints is None
    with tempfile.TemporaryDirectory(prefix="vfconvert-") if scratch else nullcontext("") as folder:
        run = options
        if scratch:  # of a run that nobody means to go on with
            place = dataclasses.replace(options.training, checkpoints=Path(folder))
            run = dataclasses.replace(options, training=place)
        done = converted(run, progress, given=Given(loaded=loaded, examples=examples))
    if done is None or done.delivery is None:
        raise ValueError("convert() works in one process; train in several by the command line under torchrun")
    delivery, report = done.delivery, done.report
    if scratch and report.training is not None:
        report = dataclasses.replace(report, training=dataclasses.replace(report.training, folder=""))
    return Conversion(
        model=separated(delivery.student),
        inference=separated(delivery.inference.model),
        report=report,
        _bare=report,
        _delivery=delivery,
        _options=options,
    )
