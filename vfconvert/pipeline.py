"""The stages in order: load, profile, plan, fit and reconstruct, export, verify, report. No logic of its own."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace

from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.forward import run_once
from vfconvert.analysis.totals import measure, planned
from vfconvert.delivery import Delivery, check_varying, deliver
from vfconvert.exporting.naming import FileNames
from vfconvert.files import Discarded, atomic_path
from vfconvert.fitting.sweep import Fitted
from vfconvert.gating import check_gates, gated
from vfconvert.inputs import Images
from vfconvert.judging import are_class_maps
from vfconvert.lowering.costs import CostTable
from vfconvert.network_plan import NetworkPlan
from vfconvert.options import ConversionOptions
from vfconvert.outputs import check_outputs, folders_of
from vfconvert.plan_choice import check_plan_options
from vfconvert.preparation import Clock, Given, prepare
from vfconvert.progress import Progress, no_progress
from vfconvert.reporting.junit import write_junit
from vfconvert.reporting.report import (
    ConversionReport,
)
from vfconvert.reporting.writing import write_report
from vfconvert.run import Run
from vfconvert.shortages import shortages_named
from vfconvert.tasks.structure import varies
from vfconvert.temporary import Turn
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import Silent, Watcher
from vfconvert.tuning import tune
from vfconvert.tuning_course import course_of
from vfconvert.tuning_identity import fit_identity_of
from vfconvert.tuning_start import Start, done, folder_of, keep_fit, kept_fit, own_folder, saved, shared
from vfconvert.verification import image_with_detections
from vfconvert.version import __version__


@dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """The report and the plan; and the networks, unless the run was dry."""

    report: ConversionReport
    plan: NetworkPlan
    delivery: Delivery | None


def convert(
    options: ConversionOptions, progress: Progress = no_progress, watcher: Watcher | None = None
) -> ConversionReport | None:
    """Convert one model file as `options` say; write the files and the reports; return the report.

    Files appear only when they are verified and pass the gates (or not, with `keep_on_fail`); reports always. Of all
    processes that train together the first writes and reports; the others return None. Raises the errors of
    `vfconvert.errors`; a failed gate raises nothing and is in the report.
    """
    done = converted(options, progress, watcher)
    return done.report if done is not None else None


@shortages_named()
def converted(
    options: ConversionOptions,
    progress: Progress = no_progress,
    watcher: Watcher | None = None,
    given: Given | None = None,
) -> Converted | None:
    """Do what `convert` does, with the networks, of a file or of what is given in its place."""
    check_plan_options(options)
    check_gates(options)
    ranks = Ranks.of_environment() if options.training.epochs and not options.dry_run else Ranks()
    if options.device == "cuda" and ranks.world > 1:
        options = replace(options, device=f"cuda:{ranks.local}")
    table = CostTable.open(options.costs, options.threads)  # one that is none is refused before any work
    check_outputs(options)
    clock = Clock()
    prepared = prepare(options, clock, given)
    run = Run(options, prepared, clock, progress)
    if options.training.epochs and not options.dry_run:
        return _tuned(run, ranks, table, watcher)
    if varies(run_once(prepared.original, prepared.example)):
        check_varying(options, prepared.original)  # before the work; images tell of other forms of such outputs
    images = run.images() if options.searches or not options.dry_run else None
    fitted = run.search(images, table) if options.searches and images is not None else None
    run.save_plan()
    if options.dry_run or images is None:
        shared = prepared.network is not None and options.forms != "plain"
        after = planned(prepared.teacher, prepared.before, prepared.layers, run.plan.converted, shared=shared)
        return Converted(report=gated(run.report(after=after), options), plan=run.network_plan, delivery=None)
    return _export(run, fitted if fitted is not None else run.fit(run.plan, images), images, table)


def _tuned(run: Run, ranks: Ranks, table: CostTable, watcher: Watcher | None) -> Converted | None:
    """Fit, or take an earlier run over, train in all processes together, and export in the first."""
    options, prepared, told = run.options, run.prepared, watcher or Silent()
    with own_folder(options) if ranks.first else nullcontext():
        with ranks.together(prepared.device):
            images = run.images() if ranks.first else None
            half = images.half("--epochs") if images is not None else 0
            course = course_of(prepared, options, ranks)  # what is wrong with it is told before the fit
            start = saved(prepared, options, told) if ranks.first else None
            if images is not None and start is None:
                with ranks.with_all_threads():
                    start = _fitted(run, images, table, told)
            begun = shared(start, prepared, options, ranks)
            with run.clock.stage("train"):
                trained, run.training = tune(begun, course, prepared, options, ranks, told)
        if images is None:
            return None
        run.plan, run.judged_from = begun.plan, half
        run.save_plan()
        with ranks.with_all_threads():
            exported = _export(run, trained, images, table)
        if not exported.report.discarded:  # else --resume writes it under other gates
            done(options)
        return exported


def _fitted(run: Run, images: Images, table: CostTable, watcher: Watcher) -> Start:
    """A start from the fit of the plan, which an earlier run may have kept."""
    options, prepared = run.options, run.prepared
    fitted = run.search(images, table) if options.searches else None
    identity = fit_identity_of(prepared, options, run.plan, images)
    if fitted is None and (fitted := kept_fit(run.plan, prepared, options, identity)) is not None:
        watcher.note(f"training from the fit of an earlier run in {folder_of(options)}")
        run.note_left_out(images)
    start = Start(plan=run.plan, fitted=fitted or run.fit(run.plan, images), state=None)
    keep_fit(start, prepared, options, identity)  # a kept one too: its plan may be another's, if that run was killed
    return start


def _export(run: Run, fitted: Fitted, images: Images, table: CostTable) -> Converted:
    options, student, example = run.options, fitted.model.cpu(), run.example.cpu()
    run.teacher.cpu()
    run.original.cpu()
    outputs = run_once(run.original, images.judging[:2])
    varying = varies(outputs)
    seen = image_with_detections(student, images.judging) if varying else example
    with run.clock.stage("lower"):
        inference = run.lower(student, example, table, seen)
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
    loaded = run.loaded
    delivery = Delivery(
        teacher=run.original,
        student=student,
        inference=inference,
        example=seen,
        judging=images.judging,
        calibration=images.calibration,
        metadata=metadata,
        plain=bool(run.prepared.plain),
        varying=varying,
        network=run.network,
        names=FileNames(tuple(one.name for one in loaded.inputs), loaded.outputs) if loaded.outputs else None,
        class_maps=not varying and are_class_maps(outputs, run.prepared.source, images),
    )
    with ExitStack() as held, ExitStack() as outputs:  # last in, first out: reports appear after what they describe
        wanted = [(write_report, path) for path in options.reports]
        wanted += [(write_junit, options.junit)] if options.junit is not None else []
        reports = [(write, outputs.enter_context(atomic_path(path))) for write, path in wanted]
        with suppress(Discarded), ExitStack() as files:
            with run.clock.stage("export and verify"):
                artefacts, precisions = deliver(delivery, options, files)
            after = replace(measure(student, example), macs_executed=count_macs(inference.model, example).total)
            report = gated(replace(run.report(after, fitted, images, artefacts), precisions=precisions), options)
            for write, beside in reports:
                write(report, beside)
            Turn(held).take(folders_of(options))  # of two runs one replaces all files of the other
            if report.discarded:
                raise Discarded
    return Converted(report=report, plan=run.network_plan, delivery=delivery)
