"""The stages in order: load, profile, plan, fit and reconstruct, export, verify, report. No logic of its own."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.analysis.counting import count_macs, count_numbers
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import Totals, measure, planned, totals_of
from vfconvert.errors import DeviceError, UnwritableOutputError
from vfconvert.exporting.onnx import ExportedOnnx, export_onnx
from vfconvert.files import atomic_path, check_writable, sha256_of
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.inputs import Images, images_of, source_of
from vfconvert.loading import LoadedModel, load_model
from vfconvert.options import ConversionOptions
from vfconvert.planning import Plan, Wish, make_plan
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.describe import agreement_report, layer_rows, size_of, warnings_of
from vfconvert.reporting.json_report import write_json
from vfconvert.reporting.report import ConversionReport, FileReport, ParityReport
from vfconvert.verification import Parity, verify_onnx
from vfconvert.version import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "onnx", "onnxscript", "onnxruntime")


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def convert(options: ConversionOptions, progress: Progress = no_progress) -> ConversionReport:
    """Convert one model file as `options` say; write the ONNX file and the JSON report; return the report.

    Outputs appear only when the exported file has been verified. Raises the errors of `vfconvert.errors`.
    """
    wish = Wish(
        spatial=options.spatial,
        channel=options.channel,
        windows=options.windows,
        channel_stride=options.channel_stride,
        crops=options.crops,
    )
    output = _output_path(options)
    if not options.dry_run:
        _check_outputs(options, output)
    device, clock = _device(options.device), _Clock()
    with clock.stage("load"):
        loaded = load_model(
            options.model,
            architecture=options.arch,
            architecture_arguments=options.arch_args,
            trust_pickle=options.trust_pickle,
        )
        teacher = copy.deepcopy(loaded.model).float().eval().to(device).requires_grad_(False)
    with clock.stage("plan"):
        source = source_of(options, teacher)
        example = torch.zeros(1, *source.shape, device=device)
        layers = profile(teacher, example)
        noise = torch.randn(2, *source.shape, generator=torch.Generator().manual_seed(options.seed))
        network = trace(teacher, noise.to(device))
        plan = make_plan(
            teacher,
            layers,
            network.following_norm if network is not None else {},
            wish,
            include=options.include,
            exclude=options.exclude,
            include_first=options.include_first,
        )
        before = totals_of(teacher, layers, count_macs(teacher, example))
    run = _Run(options, network, loaded, teacher, layers, plan, before, example, device, clock)
    if options.dry_run:
        return run.report(after=planned(teacher, before, layers, plan.converted))
    with clock.stage("images"):
        images = images_of(source, options, teacher, progress)
    chosen = _fit_options(run, images)
    fitted = compress(teacher, network, plan, images.calibration, chosen, progress)
    run.left_out = chosen.left_out if options.reconstruct else ""
    return _export(run, fitted, images, output)


class _Run:
    """What the later stages and the report share."""

    def __init__(
        self,
        options: ConversionOptions,
        network: Network | None,
        loaded: LoadedModel,
        teacher: nn.Module,
        layers: Profile,
        plan: Plan,
        before: Totals,
        example: Tensor,
        device: torch.device,
        clock: _Clock,
    ) -> None:
        self.options, self.network, self.loaded = options, network, loaded
        self.teacher, self.layers = teacher, layers
        self.left_out = ""
        self.plan, self.before, self.example, self.device, self.clock = plan, before, example, device, clock

    def report(
        self,
        after: Totals,
        fitted: Fitted | None = None,
        images: Images | None = None,
        parity: Parity | None = None,
        exported: ExportedOnnx | None = None,
        output: FileReport | None = None,
    ) -> ConversionReport:
        student = fitted.model if fitted is not None else None
        agreement = None
        if student is not None and images is not None:
            with self.clock.stage("judge"):
                agreement = agreement_report(
                    self.teacher, student, images.judging, images.labels, images.classes, images.report
                )
        seconds = dict(self.clock.seconds)
        if fitted is not None:
            seconds.update(fitted.seconds)
        return ConversionReport(
            command=self.options.command,
            versions={
                "vfconvert": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _PACKAGES},
            },
            seed=self.options.seed,
            device=str(self.device),
            input=FileReport(path=str(self.loaded.path), bytes=self.loaded.size_bytes, sha256=self.loaded.sha256),
            input_shape=tuple(self.example.shape[1:]),
            layers=layer_rows(self.plan, self.layers, student, fitted.unexplained if fitted is not None else {}),
            before=size_of(replace(self.before, numbers=count_numbers(self.loaded.model)), self.loaded.size_bytes),
            after=size_of(after, output.bytes if output is not None else None),
            images=images.report if images is not None else None,
            agreement=agreement,
            parity=_parity_report(parity, exported),
            output=output,
            seconds=seconds,
            warnings=warnings_of(
                self.plan,
                self.loaded.model,
                images.report if images else None,
                agreement,
                traced=self.network is not None,
                left_out=self.left_out,
            ),
            trusted_pickle=self.loaded.trusted,
        )


def _fit_options(run: _Run, images: Images) -> FitOptions:
    augmentation = Augmentation() if run.options.augment else Augmentation.none()
    return FitOptions.within_budget(
        macs=run.before.macs_executed,
        reconstruct=run.options.reconstruct,
        augmentation=augmentation,
        seed=run.options.seed,
        share=0.5 if images.report.source == "synthetic" else 1.0,
    )


def _export(run: _Run, fitted: Fitted, images: Images, output: Path) -> ConversionReport:
    student = fitted.model.cpu()
    after = measure(student, run.example.cpu())
    metadata = {
        "producer": f"vfconvert {__version__}",
        "command": run.options.command,
        "source_sha256": run.loaded.sha256,
        "method": "versatile filters (Wang et al., NeurIPS 2018), fitted to the pretrained network",
        "seed": str(run.options.seed),
        "layers_converted": str(len(run.plan.converted)),
        "input_shape": ",".join(map(str, run.example.shape[1:])),
        "preprocessing": images.report.preprocessing,
    }
    with ExitStack() as outputs:  # last in, first out: the report appears after the file that it describes
        beside = outputs.enter_context(atomic_path(run.options.report)) if run.options.report is not None else None
        temporary = outputs.enter_context(atomic_path(output))
        with run.clock.stage("export"):
            exported = export_onnx(student, run.example.cpu(), temporary, metadata=metadata, opset=run.options.opset)
        with run.clock.stage("verify"):
            parity = verify_onnx(temporary, student, images.judging)
        written = FileReport(path=str(output), bytes=temporary.stat().st_size, sha256=sha256_of(temporary))
        run.teacher.cpu()
        report = run.report(after, fitted, images, parity, exported, written)
        if beside is not None:
            write_json(report, beside)
    return report


def _parity_report(parity: Parity | None, exported: ExportedOnnx | None) -> ParityReport | None:
    if parity is None or exported is None:
        return None
    return ParityReport(
        maximum_error=parity.maximum_error,
        relative_error=parity.relative_error,
        tolerance=parity.tolerance,
        batch_sizes=parity.batch_sizes,
        runtime=f"{parity.runtime} {parity.runtime_version}",
        dynamic_batch=exported.dynamic_batch,
    )


def _output_path(options: ConversionOptions) -> Path:
    if options.output is not None:
        return options.output
    beside = options.model.with_suffix(".onnx")
    return beside if beside != options.model else options.model.with_suffix(".versatile.onnx")


def _check_outputs(options: ConversionOptions, output: Path) -> None:
    """Before any work: outputs can be written, and none of them is the input or the other."""
    taken = {options.model.resolve(): "the input model"}
    for flag, path in (("--output", output), ("--report", options.report)):
        if path is None:
            continue
        if path.resolve() in taken:
            raise UnwritableOutputError(f"{flag} {path} is {taken[path.resolve()]}; give another path")
        taken[path.resolve()] = f"also what {flag} writes"
        check_writable(path)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory has no value to give
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip().splitlines()[0]
        raise DeviceError(f"--device {name}: {said}; use cpu, or a device that this torch can see") from error
    return device
