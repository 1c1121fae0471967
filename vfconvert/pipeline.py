"""The stages in order: load, profile, plan, fit and reconstruct, export, verify, report. No logic of its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from torch import Tensor, nn

from vfconvert.analysis.counting import count_macs, count_numbers
from vfconvert.analysis.profile import profile
from vfconvert.analysis.totals import Totals, measure, planned
from vfconvert.budget.targets import allowed_by
from vfconvert.delivery import Delivery, deliver
from vfconvert.files import atomic_path
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.inputs import Images, images_of
from vfconvert.lowering.choice import fastest, timed
from vfconvert.lowering.costs import CostTable, executed
from vfconvert.lowering.network import Lowered
from vfconvert.options import ConversionOptions
from vfconvert.outputs import check_outputs
from vfconvert.plan_budget import find_plan
from vfconvert.plan_choice import check_plan_options
from vfconvert.plan_file import write_plan
from vfconvert.plan_search import Searched
from vfconvert.planning import Plan
from vfconvert.preparation import Clock, Prepared, prepare
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.budget import budget_report, few_tried, missed
from vfconvert.reporting.describe import (
    agreement_report,
    latency_report,
    layer_rows,
    points_lost,
    size_of,
    warnings_of,
)
from vfconvert.reporting.json_report import write_json
from vfconvert.reporting.report import (
    AgreementReport,
    ArtefactReport,
    BudgetReport,
    ConversionReport,
    FileReport,
    LatencyReport,
    TrainingReport,
    TrialReport,
)
from vfconvert.tasks.structure import VaryingOutputError
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import Watcher
from vfconvert.tuning import tune
from vfconvert.tuning_start import Start, done, saved, shared
from vfconvert.version import __version__, versions_of

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "onnx", "onnxscript", "onnxruntime")


def convert(
    options: ConversionOptions, progress: Progress = no_progress, watcher: Watcher | None = None
) -> ConversionReport | None:
    """Convert one model file as `options` say; write the ONNX file and the JSON report; return the report.

    Outputs appear only when the exported file has been verified. Of several processes that train together the first
    writes and reports; the others return None. Raises the errors of `vfconvert.errors`.
    """
    check_plan_options(options)
    ranks = Ranks.of_environment() if options.training.epochs and not options.dry_run else Ranks()
    if options.device == "cuda" and ranks.world > 1:
        options = replace(options, device=f"cuda:{ranks.local}")
    table = CostTable.open(options.costs, options.threads)  # one that is none is refused before any work
    check_outputs(options)
    clock = Clock()
    prepared = prepare(options, clock)
    run = _Run(options, prepared, clock, progress)
    if options.training.epochs and not options.dry_run:
        return _tuned(run, ranks, table, watcher)
    images = run.images() if options.searches or not options.dry_run else None
    fitted = run.search(images, table) if options.searches and images is not None else None
    if options.save_plan is not None:
        write_plan(run.plan, options.save_plan, source_sha256=prepared.loaded.sha256)
    if options.dry_run or images is None:
        return run.report(after=planned(prepared.teacher, prepared.before, prepared.layers, run.plan.converted))
    return _export(run, fitted if fitted is not None else run.fit(run.plan, images), images, table)


def _tuned(run: _Run, ranks: Ranks, table: CostTable, watcher: Watcher | None) -> ConversionReport | None:
    """Fit, or take an earlier run over, train in all processes together, and export in the first."""
    options, prepared = run.options, run.prepared
    with ranks.together(prepared.device):
        images = run.images() if ranks.first else None
        half = images.half("--epochs") if images is not None else 0
        start = saved(prepared, options) if ranks.first else None
        if images is not None and start is None:
            fitted = run.search(images, table) if options.searches else None
            start = Start(plan=run.plan, fitted=fitted or run.fit(run.plan, images), state=None)
        begun = shared(start, prepared, options, ranks)
        with run.clock.stage("train"):
            trained, run.training = tune(begun, prepared, options, ranks, watcher if ranks.first else None)
    if images is None:
        return None
    run.plan, run.judged_from = begun.plan, half
    if options.save_plan is not None:
        write_plan(run.plan, options.save_plan, source_sha256=prepared.loaded.sha256)
    report = _export(run, trained, images, table)
    done(options)
    return report


class _Run:
    """What the later stages and the report share."""

    def __init__(self, options: ConversionOptions, prepared: Prepared, clock: Clock, progress: Progress) -> None:
        self.options, self.clock, self.progress = options, clock, progress
        self.loaded, self.network, self.teacher = prepared.loaded, prepared.network, prepared.teacher
        self.layers, self.before, self.example = prepared.layers, prepared.before, prepared.example
        self.plan, self.device, self.prepared = prepared.plan, prepared.device, prepared
        self.training: TrainingReport | None = None
        self.forms: dict[str, str] = {}
        self.executed: dict[str, int] = {}
        self.latency: LatencyReport | None = None
        self.searched: Searched | None = None
        self.trials: tuple[TrialReport, ...] = ()
        self.left_out, self.judged_from = "", 0  # images held out before this one have helped to choose

    def images(self) -> Images:
        """Read or make them."""
        with self.clock.stage("images"):
            return images_of(self.prepared.source, self.options, self.teacher, self.progress)

    def fit(self, plan: Plan, images: Images, *, alone: bool = False) -> Fitted:
        """The student of a plan; with `alone` by the closed-form fit only."""
        chosen = self._fit_options(images)
        self.left_out = chosen.left_out if self.options.reconstruct else ""
        if alone:
            chosen = replace(chosen, block_steps=0, output_steps=0)
        return compress(self.teacher, self.network, plan, images.calibration, chosen, self.progress)

    def _fit_options(self, images: Images) -> FitOptions:
        return FitOptions.within_budget(
            macs=self.before.macs_executed,
            reconstruct=self.options.reconstruct,
            augmentation=Augmentation() if self.options.augment else Augmentation.none(),
            seed=self.options.seed,
            share=0.5 if images.report.source == "synthetic" else 1.0,
        )

    def search(self, images: Images, costs: CostTable) -> Fitted | None:
        """Choose the plan by the targets; the student too, where plans were tried to the end."""

        def lost(student: nn.Module, part: slice) -> float:
            return points_lost(self._agreement(student, images, part))

        with self.clock.stage("choose the plan"):
            found = find_plan(self.prepared, self.options, images, costs, self.fit, lost, self.progress)
        self.searched, self.trials, self.judged_from = found.searched, found.trials, found.judged_from
        self.plan = found.searched.plan
        if found.fitted is not None:  # the fit counts as such
            self.clock.seconds["choose the plan"] -= sum(found.fitted.seconds.values())
        return found.fitted

    def _agreement(self, student: nn.Module, images: Images, part: slice) -> AgreementReport:
        labels = images.labels[part] if images.labels is not None else None
        return agreement_report(self.teacher, student, images.judging[part], labels, images.classes, images.report)

    def lower(self, student: nn.Module, example: Tensor, table: CostTable) -> Lowered:
        """Choose the student's inference form; note what it executes and how long it takes."""
        options, layers = self.options, profile(student, example)
        known = table.known
        # The full filter minus its edges cancels what half precision cannot spare.
        without = ("full",) if options.precision == "fp16" else ()
        # Where products are limited they decide, and not what is fastest here.
        by_products = any(target.cost == "macs" for target in options.targets)
        measured = table if options.measure and not by_products else None
        lowered = fastest(student, self.network, layers, measured, self.progress, without)
        if options.measure:
            lowered, timings = timed(self.teacher, student, lowered, example, options.threads, as_it_is=by_products)
            self.latency = latency_report(timings, threads=options.threads, batch=len(example))
            if options.costs is not None and table.known > known:
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
        agreement, varying = None, False
        if student is not None and images is not None:
            with self.clock.stage("judge"):
                try:
                    agreement = self._agreement(student, images, slice(self.judged_from, None))
                except VaryingOutputError:
                    varying = True
        seconds = dict(self.clock.seconds)
        if fitted is not None:
            seconds.update(fitted.seconds)
        first = artefacts[0] if artefacts else None
        budget = self._budget(after, first)
        unexplained = fitted.unexplained if fitted is not None else {}
        rows = layer_rows(self.plan, self.layers, student, unexplained, self.before)
        return ConversionReport(
            command=self.options.command,
            versions=versions_of(_PACKAGES),
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
            budget=budget,
            training=self.training,
            seconds=seconds,
            warnings=missed(budget)
            + few_tried(budget, self.options.refine)
            + warnings_of(
                self.plan,
                self.loaded.model,
                images.report if images else None,
                agreement,
                traced=self.network is not None,
                left_out=self.left_out,
                plain=len(self.prepared.plain),
                varying=varying,
            ),
            trusted_pickle=self.loaded.trusted,
        )

    def _budget(self, after: Totals, file: ArtefactReport | None) -> BudgetReport | None:
        found, options = self.searched, self.options
        if found is None:
            return None
        allowed = [allowed_by(found.table, target, self.loaded.size_bytes) for target in options.targets]
        return budget_report(
            options.targets,
            allowed,
            found.table,
            found.point,
            found.gap,
            options.max_drop,
            self.trials,
            after,
            self.latency,
            file,
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
        plain=bool(run.prepared.plain),
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
