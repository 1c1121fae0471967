"""The sweep of the product, for layers of any kind: fit what replaces a layer, re-fit the rest, reconstruct each block.

Other ways to make a network smaller are given the same images, the same steps and the same rates by it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network, Segment
from vfconvert.fitting.boundary import Boundary, advance
from vfconvert.fitting.layers import refit_kept, set_norm, slope
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.reconstruct import Descent, output_pass, reconstruct_segment
from vfconvert.fitting.samples import Sample, SegmentSamples, layer_moments, usual_batch
from vfconvert.ops.moments import Moments
from vfconvert.rewriting import replace_module

# From a layer, its moments and the weight of each output `(N,)`: a module with `expanded_weight()` and `geometry`.
Maker = Callable[[nn.Conv2d, Moments, Tensor], nn.Module]


def repair(
    teacher: nn.Module,
    network: Network,
    images: Tensor,
    options: FitOptions,
    makers: Mapping[str, Maker],
    student: nn.Module | None = None,
    outputs_kept: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """The student with the layers of `makers` replaced, all else re-fitted, blocks and output trained.

    `student` may already be narrower inside its blocks; `outputs_kept` then says which outputs each narrow layer has.
    """
    student = copy.deepcopy(teacher) if student is None else student
    generator = torch.Generator().manual_seed(options.seed)
    batch, changed = usual_batch(network, next(teacher.parameters()).device), False
    teacher_entry = student_entry = Boundary.of(images)
    for segment in network.segments:
        samples = SegmentSamples(
            network, segment, teacher, student, teacher_entry, student_entry, images, options.residual_targets, batch
        )
        for node in _layers(teacher, network, segment):
            name = str(node.target)
            narrow = (outputs_kept or {}).get(name)
            if name in makers or narrow is not None or changed:
                _layer(teacher, student, network, name, samples.of([node]), len(images), generator, makers, narrow)
                changed = True
        if segment.exit.op == "output":
            break
        target = advance(teacher, segment, network.source, images, teacher_entry, batch)
        if options.block_steps and any(str(node.target) in makers for node in segment.nodes):
            reconstruct_segment(
                student,
                segment,
                network.source,
                images,
                student_entry,
                target,
                _descent(options, options.block_steps, options.block_rate, generator),
            )
        student_entry = advance(student, segment, network.source, images, student_entry, batch) if changed else target
        teacher_entry = target
    if options.output_steps:
        descent = _descent(options, options.output_steps, options.output_rate, generator)
        output_pass(student, teacher, images, options.augmentation, descent)
    return student


def _layers(teacher: nn.Module, network: Network, segment: Segment) -> Iterable[fx.Node]:
    for node in segment.nodes:
        name = str(node.target)
        if node.op != "call_module" or network.calls[name] > 1:
            continue
        if isinstance(teacher.get_submodule(name), (nn.Conv2d, nn.Linear)):
            yield node


@torch.no_grad()
def _layer(
    teacher: nn.Module,
    student: nn.Module,
    network: Network,
    name: str,
    samples: Iterator[Sample],
    images: int,
    generator: torch.Generator,
    makers: Mapping[str, Maker],
    narrow: Tensor | None,
) -> None:
    layer = student.get_submodule(name)
    following = network.following_norm.get(name)
    norm = student.get_submodule(following) if following is not None else None
    if narrow is not None:
        samples = (Sample(inputs=s.inputs, targets=s.targets[:, narrow]) for s in samples)
    moments = layer_moments(layer, samples, images, generator)
    if name not in makers:
        refit_kept(layer, norm, moments)
        return
    old_norm = teacher.get_submodule(following)
    replacement = makers[name](layer, moments[0], slope(old_norm).square())
    set_norm(norm, old_norm, replacement, moments)
    replace_module(student, name, replacement)


def _descent(options: FitOptions, steps: int, rate: float, generator: torch.Generator) -> Descent:
    return Descent(steps=steps, rate=rate, batch=options.batch, generator=generator, tick=lambda: None)
