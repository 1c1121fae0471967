"""What a layer of the student sees and what it should answer, as moments streamed over the calibration images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Environment, Network, Segment, needed_for, run_nodes
from vfconvert.fitting.boundary import Boundary
from vfconvert.fitting.layers import slope
from vfconvert.ops.moments import Moments, MomentSum, SampleSum, patches
from vfconvert.specs import ConvGeometry

BATCH = 64
_SAMPLES_PER_INPUT = 12  # samples wanted for each unfolded input
_FEWEST, _MOST = 32_768, 131_072
_MOST_KEPT = 4096  # samples that stand in for a covariance
_DENSE = 16_384  # unfolded inputs up to which there is a covariance where samples are many: 2 GiB
_ROWS = 64  # regions that are looked at in the same places
_ACTIVATION_NUMBERS = 2**26  # numbers in one activation of a batch: 256 MiB in float32


def batch_of(network: Network) -> int:
    """Images at a time: fewer where one image's largest activation is large."""
    return batch_for(network.largest)


def batch_for(largest: int) -> int:
    """The same, from the numbers in that activation."""
    return max(1, min(BATCH, _ACTIVATION_NUMBERS // max(1, largest)))


def usual_batch(network: Network | None) -> int:
    """The same, where a network may have no graph."""
    return batch_of(network) if network is not None else BATCH


@dataclass(frozen=True, eq=False)
class Sample:
    """One batch: the student's input of the layer and the target for its output, before any position is chosen.

    `images` is of how many images these are where rows may be regions of them; None where each row is an image.
    """

    inputs: Tensor
    targets: Tensor
    images: float | None = None


def layer_moments(
    layer: nn.Conv2d | nn.Linear, samples: Iterator[Sample], images: int, generator: torch.Generator
) -> list[Moments]:
    """The moments of every group of the layer.

    Where samples are fewer than half of the unfolded inputs (a layer that reads a whole map sees one position of each
    image), or the inputs too many for a covariance, the samples stand in for it, `_MOST_KEPT` at most.
    """
    if isinstance(layer, nn.Linear):
        total = MomentSum(layer.in_features, layer.out_features, layer.weight.device)
        for sample in samples:
            total.add(sample.inputs.flatten(0, -2), sample.targets.flatten(0, -2))
        return [total.result()]
    geometry = ConvGeometry.of(layer)
    unfolded = geometry.group_inputs * geometry.kernel_size[0] * geometry.kernel_size[1]
    wanted = min(max(_FEWEST, _SAMPLES_PER_INPUT * unfolded), _MOST)
    if unfolded > _DENSE:
        wanted = _MOST_KEPT
    sums: list[MomentSum | SampleSum] = []
    for sample in (each for whole in samples for each in _of_few_rows(whole)):
        height, width = sample.targets.shape[2:]
        rows_of_image = max(1, len(sample.targets) / sample.images) if sample.images else 1
        count = min(height * width, math.ceil(wanted / images / rows_of_image))
        if not sums and (unfolded > _DENSE or images * count * rows_of_image <= min(unfolded // 2, _MOST_KEPT)):
            sums.extend(SampleSum(_MOST_KEPT) for _ in range(geometry.groups))
        elif not sums:
            sums.extend(
                MomentSum(unfolded, geometry.group_outputs, layer.weight.device) for _ in range(geometry.groups)
            )
        chosen = torch.randperm(height * width, generator=generator)[:count]
        rows, columns = chosen // width, chosen % width
        x = patches(sample.inputs, geometry, rows, columns).flatten(0, 1)  # (S, C, kh, kw)
        t = sample.targets[:, :, rows, columns].permute(0, 2, 1).flatten(0, 1)  # (S, N)
        for own, xs, ts in zip(
            sums, torch.chunk(x, geometry.groups, 1), torch.chunk(t, geometry.groups, 1), strict=True
        ):
            own.add(xs.flatten(1), ts)
    return [own.result() for own in sums]


def _of_few_rows(sample: Sample) -> Iterator[Sample]:
    """Many regions of an image in parts, so that not all of them are looked at in the same places."""
    if not sample.images or len(sample.targets) <= max(sample.images, _ROWS):
        yield sample
        return
    share = sample.images / len(sample.targets)
    for inputs, targets in zip(torch.split(sample.inputs, _ROWS), torch.split(sample.targets, _ROWS), strict=True):
        yield Sample(inputs, targets, share * len(targets))


@dataclass(frozen=True, eq=False)
class SegmentSamples:
    """Samples of the layers of one segment, from both networks' activations at its entry."""

    network: Network
    segment: Segment
    teacher: nn.Module
    student: nn.Module
    teacher_entry: Boundary
    student_entry: Boundary
    images: Tensor
    residual_targets: bool = True
    batch: int = BATCH

    def of(self, node: fx.Node, batch: int | None = None) -> Iterator[Sample]:
        """The samples of the layer at `node`, so many images at a time (None: as the field says)."""
        size = batch if batch is not None else self.batch
        source = node.all_input_nodes[0]
        norm_name = self.network.following_norm.get(str(node.target))
        last = next(iter(node.users)) if norm_name else node
        partner = self.network.residual_partner(last, self.student) if self.residual_targets else None
        skip = partner[1] if partner is not None else None
        wanted_student = [source] + ([skip] if skip is not None else [])
        wanted_teacher = [node] + ([skip] if skip is not None else [])
        for start in range(0, len(self.images), size):
            at = slice(start, start + size)
            student = self._run(self.student, self.student_entry, wanted_student, at)
            teacher = self._run(self.teacher, self.teacher_entry, wanted_teacher, at)
            targets = teacher[node]
            if skip is not None and teacher[skip].shape == targets.shape:
                correction = teacher[skip] - student[skip]
                targets = targets + _in_units_of(self.teacher, norm_name, correction)
            yield Sample(inputs=student[source], targets=targets)

    def _run(self, root: nn.Module, entry: Boundary, wanted: list[fx.Node], at: slice) -> Environment:
        device = next(root.parameters()).device
        environment: Environment = {self.segment.entry: entry[at].to(device)}
        if self.segment.entry is not self.network.source:
            environment[self.network.source] = self.images[at].clone().to(device)
        return run_nodes(root, needed_for(wanted, self.segment.nodes), environment, keep=wanted)


def _in_units_of(teacher: nn.Module, norm_name: str | None, correction: Tensor) -> Tensor:
    """A correction of the normalised output, in the convolution's own units; none where the slope is near zero."""
    if norm_name is None:
        return correction
    norm = teacher.get_submodule(norm_name)
    if not isinstance(norm, nn.BatchNorm2d):
        return correction
    a = slope(norm).to(correction)  # (N,)
    usable = a.abs() > 1e-3 * a.abs().max()
    inverse = torch.where(usable, 1 / torch.where(usable, a, 1), 0)
    return correction * inverse.view(1, -1, 1, 1)
