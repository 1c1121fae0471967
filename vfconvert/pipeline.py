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
from vfconvert.analysis.forward import run_once
from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import Totals, measure, planned, totals_of
from vfconvert.delivery import Delivery, deliver, paths_of, precision_paths, readable_of
from vfconvert.errors import DeviceError, InputShapeError, UnwritableOutputError
from vfconvert.files import atomic_path, check_writable
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.inputs import Images, images_of, source_of
from vfconvert.loading import LoadedModel, load_model
from vfconvert.lowering.choice import fastest, timed
from vfconvert.lowering.costs import CostTable, executed
from vfconvert.lowering.network import Lowered
from vfconvert.options import ConversionOptions
from vfconvert.plan_choice import check_plan_options, plan_of
from vfconvert.plan_file import write_plan
from vfconvert.planning import Plan
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.describe import agreement_report, latency_report, layer_rows, size_of, warnings_of
from vfconvert.reporting.json_report import write_json
from vfconvert.reporting.report import ArtefactReport, ConversionReport, FileReport, LatencyReport
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
    check_plan_options(options)
    table = CostTable(threads=options.threads)
    if not options.dry_run:
        table = CostTable.open(options.costs, options.threads)  # one that is none is refused before any work
    _check_outputs(options)
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
        _check_batches(teacher, noise.to(device))
        network = trace(teacher, noise.to(device))
        plan = plan_of(options, teacher, layers, network.following_norm if network is not None else {})
        if options.save_plan is not None:
            write_plan(plan, options.save_plan, source_sha256=loaded.sha256)
        before = totals_of(teacher, layers, count_macs(teacher, example))
    run = _Run(options, network, loaded, teacher, layers, plan, before, example, device, clock, progress)
    if options.dry_run:
        return run.report(after=planned(teacher, before, layers, plan.converted))
    with clock.stage("images"):
        images = images_of(source, options, teacher, progress)
    chosen = _fit_options(run, images)
    fitted = compress(teacher, network, plan, images.calibration, chosen, progress)
    run.left_out = chosen.left_out if options.reconstruct else ""
    return _export(run, fitted, images, table)


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
        progress: Progress,
    ) -> None:
        self.options, self.network, self.loaded = options, network, loaded
        self.teacher, self.layers = teacher, layers
        self.left_out, self.progress = "", progress
        self.forms: dict[str, str] = {}
        self.executed: dict[str, int] = {}
        self.latency: LatencyReport | None = None
        self.plan, self.before, self.example, self.device, self.clock = plan, before, example, device, clock

    def lower(self, student: nn.Module, example: Tensor, table: CostTable) -> Lowered:
        """Choose the student's inference form; note what it executes and how long it takes."""
        options, layers = self.options, profile(student, example)
        known = len(table.measured)
        # The full filter minus its edges cancels what half precision cannot spare.
        without = ("full",) if options.precision == "fp16" else ()
        lowered = fastest(student, self.network, layers, table if options.measure else None, self.progress, without)
        if options.measure:
            lowered, timings = timed(self.teacher, student, lowered, example, options.threads)
            self.latency = latency_report(timings, threads=options.threads, batch=len(example))
            if options.costs is not None and len(table.measured) > known:
                table.write(options.costs)
        self.forms, self.executed = lowered.variants, executed(student, layers, lowered.variants)
        return lowered

    def report(
        self,
        after: Totals,
        fitted: Fitted | None = None,
        images: Images | None = None,
        artefacts: tuple[ArtefactReport, ...] = (),
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
        first = artefacts[0] if artefacts else None
        unexplained = fitted.unexplained if fitted is not None else {}
        rows = layer_rows(self.plan, self.layers, student, unexplained, self.before)
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
            layers=tuple(
                replace(row, form=self.forms.get(row.name), macs_executed=self.executed.get(row.name)) for row in rows
            ),
            before=size_of(replace(self.before, numbers=count_numbers(self.loaded.model)), self.loaded.size_bytes),
            after=size_of(after, first.bytes if first is not None else None),
            images=images.report if images is not None else None,
            agreement=agreement,
            parity=first.parity if first is not None else None,
            output=FileReport(path=first.path, bytes=first.bytes, sha256=first.sha256) if first is not None else None,
            artefacts=artefacts,
            latency=self.latency,
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


def _export(run: _Run, fitted: Fitted, images: Images, table: CostTable) -> ConversionReport:
    options, student, example = run.options, fitted.model.cpu(), run.example.cpu()
    run.teacher.cpu()
    with run.clock.stage("lower"):
        inference = run.lower(student, example, table)
    metadata = {
        "producer": f"vfconvert {__version__}",
        "command": options.command,
        "source_sha256": run.loaded.sha256,
        "method": "versatile filters (Wang et al., NeurIPS 2018), fitted to the pretrained network",
        "seed": str(options.seed),
        "layers_converted": str(len(run.plan.converted)),
        "input_shape": ",".join(map(str, example.shape[1:])),
        "preprocessing": images.report.preprocessing,
    }
    delivery = Delivery(
        teacher=run.teacher,
        student=student,
        inference=inference,
        example=example,
        judging=images.judging,
        calibration=images.calibration,
        metadata=metadata,
    )
    with ExitStack() as outputs:  # last in, first out: the report appears after the files that it describes
        beside = outputs.enter_context(atomic_path(options.report)) if options.report is not None else None
        with run.clock.stage("export and verify"):
            artefacts, precisions = deliver(delivery, options, outputs)
        after = replace(measure(student, example), macs_executed=count_macs(inference.model, example).total)
        report = replace(run.report(after, fitted, images, artefacts), precisions=precisions)
        if beside is not None:
            write_json(report, beside)
    return report


def _check_outputs(options: ConversionOptions) -> None:
    """Before any work: outputs can be written, and none of them is the input or the other."""
    taken = {options.model.resolve(): "the input model"}
    if options.plan is not None:
        taken[options.plan.resolve()] = "the plan that --plan reads"
    written = [] if options.dry_run else _written(options)
    for flag, path in (("--save-plan", options.save_plan), *written):
        if path is None:
            continue
        if path.resolve() in taken:
            raise UnwritableOutputError(f"{flag} {path} is {taken[path.resolve()]}; give another path")
        taken[path.resolve()] = f"also what {flag} writes"
        check_writable(path)


def _written(options: ConversionOptions) -> list[tuple[str, Path | None]]:
    """What a run that is not dry writes besides a plan, each file with the flag that names it."""
    new_costs = None if options.costs is not None and options.costs.exists() else options.costs
    files = paths_of(options)
    written: list[tuple[str, Path | None]] = [("--output", path) for path in files.values()]
    if "safetensors" in files:
        written.append(("--output", readable_of(files["safetensors"])))
    written += [("--output", path) for path in precision_paths(options).values()]
    return [*written, ("--report", options.report), ("--costs", new_costs)]


def _check_batches(model: nn.Module, pair: Tensor) -> None:
    """A network that has run on one image must run on several, since it is fitted on batches."""
    try:
        run_once(model, pair)
    except InputShapeError as error:
        raise InputShapeError(
            f"the network takes one image but not a batch of {len(pair)}, as the fit needs it ({error.__cause__}); "
            "make its forward independent of the number of images"
        ) from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory has no value to give
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip().splitlines()[0]
        raise DeviceError(f"--device {name}: {said}; use cpu, or a device that this torch can see") from error
    return device
