"""The front door for Python: a network in memory or in a file goes in, a `Conversion` comes out.

Nothing is written but by `Conversion.export`, and by the options that name a file.
"""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vfconvert.combinations import TRAINING_PREFIX, wrong_combination
from vfconvert.data.given import given_examples
from vfconvert.delivery import Delivery, deliver
from vfconvert.errors import ExportError, UncheckableGateError
from vfconvert.formats import SUFFIXES, format_of
from vfconvert.gates import read_bytes, read_saving
from vfconvert.gating import gated, refuse_failed
from vfconvert.loading.in_memory import loaded_module
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override, read_override
from vfconvert.pipeline import converted
from vfconvert.preparation import Given
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.report import ArtefactReport, ConversionReport
from vfconvert.reporting.writing import write_report
from vfconvert.reporting.written import with_files
from vfconvert.targets import Target, read_target
from vfconvert.training_options import TrainingOptions

_SETTINGS = {
    part: tuple(field.name for field in dataclasses.fields(part)) for part in (ConversionOptions, TrainingOptions)
}
_DEFAULTS = {
    part: {field.name: field.default for field in dataclasses.fields(part)}
    for part in (ConversionOptions, TrainingOptions)
}
# What `convert` has under another name, what `export` has, and what is about files alone.
_OWN = (
    *("model", "data", "layers", "targets", "training", "dry_run", "formats", "output", "command"),
    *("dynamic_size", "opset", "precision", "int8", "reports", "samples", "junit", "keep_on_fail"),
    *("fail_under_saving", "fail_over_drop", "max_latency_ratio", "max_parity_error", "max_size", "trust_data_code"),
)
_PATHS = ("plan", "save_plan", "damage_cache", "target_data", "costs", "checkpoints", "tensorboard")
_OF_FILES = ("arch", "arch_args", "trust_pickle")
# The fields of the options that `convert` takes as keywords.
KEYWORDS = tuple(name for names in _SETTINGS.values() for name in names if name not in _OWN)


@dataclass(kw_only=True, eq=False)
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
        `UncheckableGateError` for a limit that no gate has, `ValueError` for one that cannot be read.
        """
        options = dataclasses.replace(
            self._options,
            fail_under_saving=tuple(
                read_saving(f"{cost}={_limit_text(share)}") for cost, share in (fail_under_saving or {}).items()
            ),
            fail_over_drop=fail_over_drop,
            max_latency_ratio=max_latency_ratio,
            max_parity_error=max_parity_error,
            max_size=read_bytes(max_size) if isinstance(max_size, str) else max_size,
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
    one as it is. Without it, images are made up. `settings` are further fields of `ConversionOptions` and of
    `TrainingOptions`, but for those of files, gates and reports.

    Raises `TypeError` for a setting that does not exist, `ValueError` for a target or layer that cannot be read and
    where settings say nothing beside each other, and the errors of `vfconvert.errors`.
    """
    own, training = _settings(settings)
    if isinstance(model, nn.Module) and (given := [name for name in _OF_FILES if name in settings]):
        raise TypeError(f"convert(): {given[0]} says how a file is read, but a network was given; drop it")
    loaded = loaded_module(model) if isinstance(model, nn.Module) else None
    examples = None if data is None or isinstance(data, (str, Path)) else given_examples(data)
    options = ConversionOptions(
        model=loaded.path if loaded is not None else Path(str(model)),
        spatial=spatial,
        channel=channel,
        targets=tuple(_targets(targets)),
        layers=tuple(_layers(layers)),
        data=Path(data) if isinstance(data, (str, Path)) else None,
        formats=(),
        training=TrainingOptions(epochs=epochs, **training),
        command="vfconvert.convert",
        **own,
    )
    _check(options, settings, has_images=data is not None)
    scratch = epochs > 0 and options.training.checkpoints is None
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
        model=delivery.student,
        inference=delivery.inference.model,
        report=report,
        _bare=report,
        _delivery=delivery,
        _options=options,
    )


def _check(options: ConversionOptions, settings: Mapping[str, Any], *, has_images: bool) -> None:
    """Raise `ValueError` where the keywords say nothing beside each other; one of its default value is not stated."""
    parts = ((options, ""), (options.training, TRAINING_PREFIX))
    names = (*settings, "spatial", "channel", "layers", "targets")
    stated = {
        f"{prefix}{name}"
        for part, prefix in parts
        for name, default in _DEFAULTS[type(part)].items()
        if name in names and getattr(part, name) != default
    }
    problem = wrong_combination(options, stated, lambda name: name.removeprefix(TRAINING_PREFIX), has_images=has_images)
    if problem is not None:
        raise ValueError(f"convert(): {problem}")


def _settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the conversion and those of its training."""
    for name in given:
        if name not in KEYWORDS:
            nearest = difflib.get_close_matches(name, KEYWORDS, n=1, cutoff=0.0)[0]
            raise TypeError(f"convert() has no setting {name!r}; the nearest is {nearest!r}")
        if name in ("include", "exclude") and isinstance(given[name], str):
            raise TypeError(f"convert(): {name} got a text, expected a sequence of them, like [{given[name]!r}]")
    values = {name: _as_field(name, value) for name, value in given.items()}
    conversion = {name: value for name, value in values.items() if name in _SETTINGS[ConversionOptions]}
    return conversion, {name: value for name, value in values.items() if name not in conversion}


def _as_field(name: str, value: Any) -> Any:
    """A value as the options hold it."""
    if name in _PATHS and isinstance(value, str):
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _targets(given: Mapping[str, str | float] | Sequence[Target]) -> list[Target]:
    if not isinstance(given, Mapping):
        return list(given)
    return [read_target(f"{cost}={_limit_text(limit)}") for cost, limit in given.items()]


def _limit_text(limit: str | float) -> str:
    """As the command line takes it; a number is a share of the original."""
    return limit if isinstance(limit, str) else f"{100 * limit:g}%"


def _layers(given: Mapping[str, str] | Sequence[Override]) -> list[Override]:
    if not isinstance(given, Mapping):
        return list(given)
    return [read_override(f"{glob}={kind}") for glob, kind in given.items()]
