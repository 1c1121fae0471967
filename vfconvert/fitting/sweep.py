"""The sweep: block after block, fit what the plan converts, re-fit what it keeps, reconstruct the block, move on.

Everything before a layer is already converted when the layer is fitted, so each layer repairs what it can of what was
lost before it. Activations are held at one block boundary only.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network, Segment
from vfconvert.analysis.parts import Part
from vfconvert.eligibility import refittable
from vfconvert.errors import FitError
from vfconvert.fitting.boundary import Boundary, advance
from vfconvert.fitting.layers import fit_versatile, refit_kept, set_bias, set_norm, slope
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.orders import InputOrders
from vfconvert.fitting.passes import Passes
from vfconvert.fitting.reconstruct import Descent, output_pass, reconstruct_segment
from vfconvert.fitting.samples import Sample, SegmentSamples, layer_moments, usual_batch
from vfconvert.fitting.untraced import WholePassSamples, batch_of_whole, calls_of, entry_of
from vfconvert.planning import Convert, Plan
from vfconvert.portions import Portion
from vfconvert.progress import Progress, no_progress
from vfconvert.rewriting import replace_module


@dataclass(frozen=True, eq=False)
class Fitted:
    """The student, the share of each converted layer's output variance left unexplained, and seconds per stage.

    `notes` are sentences that the user should read.
    """

    model: nn.Module
    unexplained: dict[str, float]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()


def compress(
    teacher: nn.Module,
    network: Network | None,
    plan: Plan,
    images: Tensor,
    options: FitOptions,
    progress: Progress = no_progress,
    parts: Sequence[Part] = (),
) -> Fitted:
    """Fit and reconstruct. `images` `(N, C, H, W)` are unlabelled; the teacher (in eval mode) is not changed.

    Without a traced network every layer is fitted by whole passes and only the output is trained on, but for layers of
    `parts` that could be traced: these are fitted as networks of their own. Where memory runs out, fewer images are
    computed at once, and the notes say so.
    """
    sweep = _Sweep(teacher, network, plan, images, options, progress)
    with sweep.timed("fit"), torch.random.fork_rng(devices=[]):  # new layers are initialised before they are fitted
        if network is None:
            sweep.fit_whole(parts)
        else:
            sweep.fit_blocks(network)
    if options.output_steps:
        with sweep.timed("output pass"):
            output_pass(
                sweep.student,
                teacher,
                images,
                options.augmentation,
                sweep.descent("output pass", options.output_steps, options.output_rate, options.output_steps),
            )
    sweep.seconds["fit"] -= sweep.seconds.get("reconstruct", 0.0)
    missing = [d.layer for d in plan.converted if d.layer not in sweep.unexplained]
    if missing:
        raise FitError(
            f"{len(missing)} of the layers to convert were never reached ({', '.join(missing[:3])}); "
            "keep them with --exclude"
        )
    return Fitted(model=sweep.student, unexplained=sweep.unexplained, seconds=sweep.seconds, notes=sweep.notes)


class _Sweep:
    def __init__(
        self,
        teacher: nn.Module,
        network: Network | None,
        plan: Plan,
        images: Tensor,
        options: FitOptions,
        progress: Progress,
    ) -> None:
        self.student = copy.deepcopy(teacher)
        self.unexplained: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._teacher, self._images, self._options, self._progress = teacher, images, options, progress
        self._converted = {decision.layer: decision for decision in plan.converted}
        self._norms = network.following_norm if network is not None else {}
        self._portion = Portion(min(usual_batch(network, next(teacher.parameters()).device), len(images)))
        self._steps_portion = Portion(min(options.batch, len(images)))
        self._generator = torch.Generator().manual_seed(options.seed)
        self._done: Counter[str] = Counter()
        self._part_notes: tuple[str, ...] = ()
        self._refittable = refittable(teacher)
        self._orders = InputOrders(teacher, network, self.student) if network is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        own = (*self._portion.note("the fit"), *self._steps_portion.note("the reconstruction"))
        return (*own, *(note for note in self._part_notes if note not in own))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def descent(self, stage: str, steps: int, rate: float, total: int) -> Descent:
        return Descent(
            steps=steps,
            rate=rate,
            batch=self._options.batch,
            generator=self._generator,
            tick=lambda: self._tick(stage, total),
            portion=self._steps_portion,
        )

    def fit_blocks(self, network: Network) -> None:
        """Segment by segment: fit its layers, reconstruct it, move both networks' activations to its exit."""
        steps = self._options.block_steps
        layers = [self._layers(segment) for segment in network.segments]
        trained = [bool(steps) and self._converts(s) and s.exit.op != "output" for s in network.segments]
        source = network.source
        teacher_entry = student_entry = Boundary.of(self._images)
        for segment, nodes, train in zip(network.segments, layers, trained, strict=True):
            samples = SegmentSamples(
                network,
                segment,
                self._teacher,
                self.student,
                teacher_entry,
                student_entry,
                self._images,
                self._options.residual_targets,
            )
            for name, calls in nodes.items():
                self._layer(name, partial(samples.of, calls))
                self._tick("fit", sum(map(len, layers)))
            if segment.exit.op == "output":
                return
            target = self._portion.fitted(partial(advance, self._teacher, segment, source, self._images, teacher_entry))
            if train:
                with self.timed("reconstruct"):
                    descent = self.descent("reconstruct", steps, self._options.block_rate, sum(trained) * steps)
                    reconstruct_segment(self.student, segment, source, self._images, student_entry, target, descent)
            changed = bool(self.unexplained)
            move = partial(advance, self.student, segment, source, self._images, student_entry)
            student_entry = self._portion.fitted(move) if changed else target
            teacher_entry = target

    def fit_whole(self, parts: Sequence[Part]) -> None:
        """Part by part, then the other layers in the order of `named_modules` by whole passes of both networks."""
        pending = set(self._converted)
        passes = Passes(self._teacher), Passes(self.student, pending)
        self._portion = Portion(min(batch_of_whole(self._teacher, self._images), len(self._images)))
        for part in parts:
            self._fit_part(part, passes)
            pending.difference_update(self.unexplained)
        samples = WholePassSamples(*passes, self._images, calls_of(self._teacher, self._images))
        for name in self._converted:
            if name not in self.unexplained:
                self._layer(name, partial(samples.of, name))
                self._tick("fit", len(self._converted))
                pending.discard(name)

    def _fit_part(self, part: Part, passes: tuple[Passes, Passes]) -> None:
        """Fit a part by itself, where both networks give it the same: nothing before it was converted."""
        plan = _plan_of_part(part, self._converted.values())
        if not plan.converted:
            return
        entries = (self._portion.fitted(partial(entry_of, each, part.name, self._images)) for each in passes)
        entry = next(entries)
        if entry is None or (self.unexplained and not _equal(entry, next(entries))):
            return
        teacher = self._teacher.get_submodule(part.name)
        sweep = _Sweep(teacher, part.network, plan, entry, self._options, self._progress)
        sweep.fit_blocks(part.network)
        replace_module(self.student, part.name, sweep.student)
        self.unexplained |= {part.whole(name): share for name, share in sweep.unexplained.items()}
        for stage, seconds in sweep.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._part_notes += sweep.notes

    def _tick(self, stage: str, total: int) -> None:
        self._done[stage] += 1
        self._progress(stage, self._done[stage], total)

    def _converts(self, segment: Segment) -> bool:
        return any(str(node.target) in self._converted for node in segment.nodes)

    def _layers(self, segment: Segment) -> dict[str, list[fx.Node]]:
        """Layers of the segment to fit or re-fit, in the order of their first calls, each with all of them."""
        found: dict[str, list[fx.Node]] = {}
        for node in segment.nodes:
            name = str(node.target)
            if node.op == "call_module" and (
                name in self._converted or (self._options.refit_kept and name in self._refittable)
            ):
                found.setdefault(name, []).append(node)
        return found

    @torch.no_grad()
    def _layer(self, name: str, samples: Callable[[int], Iterator[Sample]]) -> None:
        """Fit one layer, or re-fit it where it is kept and something before it has changed."""
        layer, decision = self.student.get_submodule(name), self._converted.get(name)
        if not isinstance(layer, (nn.Conv2d, nn.Linear)) or (decision is None and not self.unexplained):
            return
        norm, old_norm = self._norm(self.student, name), self._norm(self._teacher, name)
        moments = self._portion.fitted(
            lambda batch: layer_moments(layer, samples(batch), len(self._images), self._generator), self._generator
        )
        if not moments:  # never called on these images
            return
        if decision is None or not isinstance(layer, nn.Conv2d):
            refit_kept(layer, norm, moments)
            return
        importance = torch.ones(layer.out_channels, dtype=torch.float64)
        if old_norm is not None:
            importance = slope(old_norm).square()
        windowed = decision.spec.windows > 1 and decision.geometry.groups == 1
        order = self._orders.of(name) if self._orders is not None and windowed else None
        versatile, self.unexplained[name] = fit_versatile(decision, moments, importance, layer, order)
        if norm is not None and old_norm is not None:
            set_norm(norm, old_norm, versatile, moments)
        set_bias(versatile, moments)
        replace_module(self.student, name, versatile)

    def _norm(self, root: nn.Module, layer: str) -> nn.BatchNorm2d | None:
        name = self._norms.get(layer)
        norm = root.get_submodule(name) if name is not None else None
        return norm if isinstance(norm, nn.BatchNorm2d) else None


def _equal(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one, other)


def _plan_of_part(part: Part, converted: Iterable[Convert]) -> Plan:
    """What is to become of the layers of a part, by its own names."""
    found = []
    for decision in converted:
        own = part.own(decision.layer)
        if own is not None:
            found.append(replace(decision, layer=own, norm=part.own(decision.norm) if decision.norm else None))
    return Plan(decisions=tuple(found))
