"""The sweep: block after block, fit what the plan converts, re-fit what it keeps, reconstruct the block, move on.

Everything before a layer is already converted when the layer is fitted, so each layer repairs what it can of what was
lost before it. Activations are held at one block boundary only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network, Segment, run_nodes
from vfconvert.fitting.augment import Augmentation
from vfconvert.fitting.boundary import Boundary
from vfconvert.fitting.layers import fit_versatile, refit_kept, set_bias, set_norm, slope
from vfconvert.fitting.reconstruct import output_pass, reconstruct_segment
from vfconvert.fitting.samples import BATCH, SegmentSamples, layer_moments
from vfconvert.planning import Convert, Plan
from vfconvert.rewriting import replace_module

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """What the sweep does besides the fit itself.

    `block_steps` and `output_steps` are Adam steps per block and on the output (0: none); `rate` their first rates.
    """

    block_steps: int = 400
    output_steps: int = 400
    block_rate: float = 1e-3
    output_rate: float = 5e-4
    residual_targets: bool = True
    refit_kept: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """The student, the share of each converted layer's output variance left unexplained, and seconds per stage."""

    model: nn.Module
    unexplained: dict[str, float]
    seconds: dict[str, float]


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def compress(
    teacher: nn.Module,
    network: Network,
    plan: Plan,
    images: Tensor,
    options: FitOptions,
    progress: Progress = no_progress,
) -> Fitted:
    """Fit and reconstruct. `images` `(N, C, H, W)` are unlabelled; the teacher (in eval mode) is not changed."""
    sweep = _Sweep(teacher, network, plan, images, options, progress)
    return sweep.run()


class _Sweep:
    def __init__(
        self,
        teacher: nn.Module,
        network: Network,
        plan: Plan,
        images: Tensor,
        options: FitOptions,
        progress: Progress,
    ) -> None:
        self._teacher, self._network, self._images = teacher, network, images
        self._student = copy.deepcopy(teacher)
        self._converted = {decision.layer: decision for decision in plan.converted}
        self._options, self._progress = options, progress
        self._generator = torch.Generator().manual_seed(options.seed)
        self._source = next(node for node in network.graph.nodes if node.op == "placeholder")
        self._unexplained: dict[str, float] = {}
        self._seconds = {"fit": 0.0, "reconstruct": 0.0, "output": 0.0}

    def run(self) -> Fitted:
        steps, done = self._options.block_steps, 0
        segments = self._network.segments
        reconstructed = [s for s in segments if steps and self._converts(s) and s.exit.op != "output"]
        started = {"fit": 0, "reconstruct": 0}
        layers = sum(len(self._layers(segment)) for segment in segments)

        def tick(stage: str, total: int) -> Callable[[], None]:
            def one() -> None:
                started[stage] += 1
                self._progress(stage, started[stage], total)

            return one

        teacher_entry = student_entry = Boundary.of(self._images)
        for segment in segments:
            samples = SegmentSamples(
                self._network,
                segment,
                self._teacher,
                self._student,
                teacher_entry,
                student_entry,
                self._images,
                self._options.residual_targets,
            )
            begun = time.perf_counter()
            for node in self._layers(segment):
                self._layer(node, samples)
                tick("fit", layers)()
            self._seconds["fit"] += time.perf_counter() - begun
            if segment.exit.op == "output":
                break
            begun = time.perf_counter()
            target = self._advance(self._teacher, segment, teacher_entry)
            if segment in reconstructed:
                reconstruct_segment(
                    self._student,
                    segment,
                    self._source,
                    self._images,
                    student_entry,
                    target,
                    steps=steps,
                    rate=self._options.block_rate,
                    generator=self._generator,
                    tick=tick("reconstruct", len(reconstructed) * steps),
                )
            student_entry = self._advance(self._student, segment, student_entry)
            teacher_entry = target
            self._seconds["reconstruct"] += time.perf_counter() - begun
        del teacher_entry, student_entry
        if self._options.output_steps:
            begun = time.perf_counter()

            def count() -> None:
                nonlocal done
                done += 1
                self._progress("output", done, self._options.output_steps)

            output_pass(
                self._student,
                self._teacher,
                self._images,
                steps=self._options.output_steps,
                rate=self._options.output_rate,
                augmentation=self._options.augmentation,
                generator=self._generator,
                tick=count,
            )
            self._seconds["output"] = time.perf_counter() - begun
        return Fitted(model=self._student, unexplained=self._unexplained, seconds=self._seconds)

    def _converts(self, segment: Segment) -> bool:
        return any(str(node.target) in self._converted for node in segment.nodes)

    def _layers(self, segment: Segment) -> list[fx.Node]:
        """Layers of the segment to fit or re-fit, in order; a module called twice is left alone."""
        found = []
        for node in segment.nodes:
            name = str(node.target)
            if node.op != "call_module" or self._network.calls[name] > 1:
                continue
            kind = type(self._teacher.get_submodule(name))
            if name in self._converted or (self._options.refit_kept and kind in (nn.Conv2d, nn.Linear)):
                found.append(node)
        return found

    @torch.no_grad()
    def _layer(self, node: fx.Node, samples: SegmentSamples) -> None:
        name = str(node.target)
        layer = self._student.get_submodule(name)
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            return
        norm_name = self._network.following_norm.get(name)
        norm = self._student.get_submodule(norm_name) if norm_name else None
        old_norm = self._teacher.get_submodule(norm_name) if norm_name else None
        decision = self._converted.get(name)
        if decision is None and not self._unexplained:
            return  # nothing before it has changed
        moments = layer_moments(layer, samples.of(node), len(self._images), self._generator)
        if decision is None or not isinstance(layer, nn.Conv2d):
            refit_kept(layer, norm if isinstance(norm, nn.BatchNorm2d) else None, moments)
            return
        outputs = layer.out_channels
        importance = torch.ones(outputs, dtype=torch.float64)
        if isinstance(old_norm, nn.BatchNorm2d):
            importance = slope(old_norm).square()
        versatile, _, self._unexplained[name] = fit_versatile(decision, moments, importance, layer)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(old_norm, nn.BatchNorm2d):
            set_norm(norm, old_norm, versatile, moments)
        set_bias(versatile, moments)
        replace_module(self._student, name, versatile)

    @torch.no_grad()
    def _advance(self, root: nn.Module, segment: Segment, entry: Boundary) -> Boundary:
        """The activations at the segment's exit."""
        out: Boundary | None = None
        for at, batch in zip(range(0, len(entry), BATCH), entry.batches(BATCH), strict=True):
            environment = run_nodes(
                root, segment.nodes, {self._source: self._images[at : at + BATCH], segment.entry: batch}
            )
            value: Tensor = environment[segment.exit]
            if out is None:
                out = Boundary(len(entry), value.shape[1:])
            out.append(value)
        if out is None:
            raise ValueError("no calibration images")
        return out
