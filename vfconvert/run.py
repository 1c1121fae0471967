"""One conversion: what its stages share, what they find for the report, and the report."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from vfconvert.analysis.counting import count_numbers
from vfconvert.analysis.profile import profile
from vfconvert.analysis.totals import Totals
from vfconvert.budget.targets import allowed_by
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import Fitted, compress
from vfconvert.inputs import Images, images_of
from vfconvert.judging import agreement_on, judged
from vfconvert.lowering.choice import as_convolutions, fastest, timed
from vfconvert.lowering.costs import CostTable, executed
from vfconvert.lowering.network import Lowered
from vfconvert.network_plan import NetworkPlan
from vfconvert.nn.flattened import flattened_convs
from vfconvert.nn.several_inputs import shapes_of
from vfconvert.ops.blocks import CANCELLING
from vfconvert.options import ConversionOptions
from vfconvert.plan_budget import find_plan
from vfconvert.plan_search import Searched
from vfconvert.planning import Plan
from vfconvert.preparation import Clock, Prepared
from vfconvert.progress import Progress
from vfconvert.reporting.budget import budget_report, damages, few_tried, missed
from vfconvert.reporting.cautions import layout_warning, linears_unknown, rounded, warnings_of
from vfconvert.reporting.describe import latency_report, layer_rows, linear_rows, points_lost, size_of
from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import (
    ArtefactReport,
    BudgetReport,
    ConversionReport,
    FileReport,
    TrainingReport,
    TrialReport,
)
from vfconvert.tasks.structure import VaryingOutputError
from vfconvert.verification import FLOAT32_TOLERANCE
from vfconvert.version import versions_of

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "onnx", "onnxscript", "onnxruntime")


class Run:
    """What the later stages and the report share."""

    def __init__(self, options: ConversionOptions, prepared: Prepared, clock: Clock, progress: Progress) -> None:
        self.options, self.clock, self.progress = options, clock, progress
        self.loaded, self.network = prepared.loaded, prepared.network
        self.teacher, self.original = prepared.teacher, prepared.original
        self.layers, self.before, self.example = prepared.layers, prepared.before, prepared.example
        self.plan, self.device, self.prepared = prepared.plan, prepared.device, prepared
        self.training: TrainingReport | None = None
        self.forms: dict[str, str] = {}
        self.executed: dict[str, int] = {}
        self.latency: LatencyReport | None = None
        self.searched: Searched | None = None
        self.trials: tuple[TrialReport, ...] = ()
        self.left_out, self.judged_from = "", 0  # images held out before this one have helped to choose

    @property
    def network_plan(self) -> NetworkPlan:
        """The plan as a value of its own."""
        return NetworkPlan(
            plan=self.plan,
            source_sha256=self.loaded.sha256,
            linear=bool(flattened_convs(self.teacher)),
            predicted=self.searched.point if self.searched is not None else None,
        )

    def save_plan(self) -> None:
        """Write the plan where it was asked for. Raises `UnwritableOutputError`."""
        if (path := self.options.save_plan) is not None:
            self.network_plan.save(path)

    def images(self) -> Images:
        """Read or make them."""
        with self.clock.stage("images"):
            macs = self.before.macs_executed if self.network is None else 0
            return images_of(self.prepared.source, self.options, self.teacher, self.progress, macs)

    def fit(self, plan: Plan, images: Images, *, alone: bool = False) -> Fitted:
        """The student of a plan; with `alone` by the closed-form fit only."""
        chosen = self._fit_options(images)
        self.note_left_out(images)
        if alone:
            chosen = replace(chosen, block_steps=0, output_steps=0)
        return compress(
            self.teacher, self.network, plan, images.calibration, chosen, self.progress, self.prepared.parts
        )

    def note_left_out(self, images: Images) -> None:
        """Have the report say what of the fit to these images was left out for its time."""
        self.left_out = self._fit_options(images).left_out if self.options.reconstruct else ""

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
            return points_lost(agreement_on(self.original, student, images, part, self.prepared.source))

        with self.clock.stage("choose the plan"):
            found = find_plan(self.prepared, self.options, images, costs, self.fit, lost, self.progress)
        self.searched, self.trials, self.judged_from = found.searched, found.trials, found.judged_from
        self.plan = found.searched.plan
        if found.fitted is not None:  # the fit counts as such
            self.clock.seconds["choose the plan"] -= sum(found.fitted.seconds.values())
        return found.fitted

    def lower(self, student: nn.Module, example: Tensor, table: CostTable, seen: Tensor) -> Lowered:
        """Choose the student's inference form; note what it executes, and how long it takes on `seen`, an image."""
        options, layers = self.options, profile(student, example)
        known = table.known
        # The full filter minus its edges cancels what half precision cannot spare.
        without = (CANCELLING,) if options.precision == "fp16" else ()
        # Where products are limited they decide, and not what is fastest here.
        by_products = any(target.cost == "macs" for target in options.targets)
        measured = table if options.measure and not by_products else None
        if options.forms == "plain":
            lowered = as_convolutions(student, layers)
        else:
            lowered = fastest(student, self.network, layers, measured, self.progress, without)
        if options.measure:
            lowered, timings = timed(self.original, student, lowered, seen, options.threads, as_it_is=by_products)
            self.latency = latency_report(timings, threads=options.threads, batch=len(seen))
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
        """All that is known of the conversion by now; the student is judged here."""
        student = fitted.model if fitted is not None else None
        looked_at, varying = None, False
        if student is not None and images is not None:
            with self.clock.stage("judge"):
                part, source = slice(self.judged_from, None), self.prepared.source
                try:
                    looked_at = judged(self.original, student, images, part, source, self.options.samples)
                except VaryingOutputError:
                    varying = True
        agreement, samples, doubts = looked_at if looked_at is not None else (None, (), ())
        seconds = dict(self.clock.seconds)
        if fitted is not None:
            seconds.update(fitted.seconds)
        first = artefacts[0] if artefacts else None
        budget = self._budget(after, first)
        unexplained = fitted.unexplained if fitted is not None else {}
        rows = layer_rows(self.plan, self.layers, student, unexplained, self.before)
        found = self.searched
        damage = damages(found.table, found.point) if found is not None else {}
        return ConversionReport(
            command=self.options.command,
            versions=versions_of(_PACKAGES),
            seed=self.options.seed,
            device=str(self.device),
            input=FileReport(path=str(self.loaded.path), bytes=self.loaded.size_bytes, sha256=self.loaded.sha256),
            input_shape=tuple(self.example.shape[1:]),
            input_shapes=shapes_of(self.teacher, self.example.shape),
            layers=tuple(
                replace(
                    row,
                    form=self.forms.get(row.name),
                    macs_executed=self.executed.get(row.name),
                    damage=damage.get(row.name),
                )
                for row in rows
            ),
            linears=linear_rows(self.prepared.linears, self.before),
            before=size_of(replace(self.before, numbers=count_numbers(self.loaded.model)), self.loaded.size_bytes),
            after=size_of(after, first.bytes if first is not None else None),
            images=images.report if images is not None else None,
            agreement=agreement,
            samples=samples,
            parity=first.parity if first is not None else None,
            output=FileReport(path=first.path, bytes=first.bytes, sha256=first.sha256) if first is not None else None,
            artefacts=artefacts,
            latency=self.latency,
            budget=budget,
            training=self.training,
            seconds=seconds,
            forms=self.options.forms,
            warnings=missed(budget)
            + few_tried(budget, self.options.refine)
            + (self.searched.table.notes if self.searched is not None else ())
            + (images.notes if images is not None else ())
            + (fitted.notes if fitted is not None else ())
            + doubts
            + rounded(artefacts, FLOAT32_TOLERANCE)
            + layout_warning(any(stated.channels_last for stated in self.loaded.inputs))
            + linears_unknown(asked=self.options.linear, traced=self.network is not None)
            + warnings_of(
                self.plan,
                self.loaded.model,
                images.report if images else None,
                agreement,
                self.options,
                alone=self._alone(),
                chosen_by=self.judged_from,
                parts=[part.name for part in self.prepared.parts],
                left_out=self.left_out,
                plain=len(self.prepared.plain),
                varying=varying,
            ),
            trusted_pickle=self.loaded.trusted,
        )

    def _alone(self) -> int | None:
        """How many layers are converted outside of what could be traced; None where the whole network could."""
        if self.network is not None:
            return None
        layers = [decision.layer for decision in self.plan.converted]
        return sum(all(part.own(layer) is None for part in self.prepared.parts) for layer in layers)

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
