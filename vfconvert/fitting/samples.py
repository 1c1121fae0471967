"""What a layer of the student sees and what it should answer, as moments streamed over the calibration images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network, Segment
from vfconvert.analysis.running import Environment, Read, needed_for, run_nodes
from vfconvert.analysis.writing import writes
from vfconvert.fitting.boundary import Boundary
from vfconvert.fitting.layers import slope
from vfconvert.ops.moments import Moments, MomentSum, SampleSum, patches
from vfconvert.specs import ConvGeometry

BATCH = 64
_SAMPLES_PER_INPUT = 12  # samples wanted for each unfolded input
_FEWEST, _MOST = 32_768, 131_072
_INDEPENDENT = 16  # positions of an image that count as samples of their own: the others are much like these
_MOST_KEPT = 4096  # samples that stand in for a covariance
_DENSE = 16_384  # unfolded inputs up to which there is a covariance where samples are many: 2 GiB
_ROWS = 64  # regions that are looked at in the same places
_ACTIVATION_NUMBERS = 2**23  # in one activation of a batch: with larger ones processors take a third more time
_ON_DEVICES = 2**26  # the same where it is the memory that counts


def batch_for(largest: int, device: torch.device) -> int:
    """Images at a time, from the numbers in one image's largest activation: fewer where these are many."""
    most = _ACTIVATION_NUMBERS if device.type == "cpu" else _ON_DEVICES
    return max(1, min(BATCH, most // max(1, largest)))


def usual_batch(network: Network | None, device: torch.device) -> int:
    """The same for a network, which may have no graph."""
    return batch_for(network.largest, device) if network is not None else BATCH


@dataclass(frozen=True, eq=False)
class Sample:
    """One batch of one call: the student's input of the layer and the target for its output, all positions of it.

    `images` is of how many images these are where rows may be regions of them; None where each row is an image.
    `positions` are those of an image in all its rows and calls together; None where this is the only call.
    """

    inputs: Tensor
    targets: Tensor
    images: float | None = None
    positions: float | None = None


class LayerMoments:
    """The moments of every group of a layer, over all its calls, of `images` in all; samples are added in turn.

    Every position of every call weighs alike, so that a small map among several calls gives few samples.
    Where samples are fewer than half of the unfolded inputs (a layer that reads a whole map sees one position of each
    image), or the inputs too many for a covariance, the samples stand in for it, `_MOST_KEPT` at most.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, images: int, generator: torch.Generator) -> None:
        self._layer, self._images, self._generator = layer, images, generator
        self._sums: list[MomentSum | SampleSum] = []

    def add(self, sample: Sample) -> None:
        """Add a batch of one call."""
        if isinstance(self._layer, nn.Linear):
            if not self._sums:
                self._sums.append(MomentSum(self._layer.in_features, self._layer.out_features, self._device))
            self._sums[0].add(sample.inputs.flatten(0, -2), sample.targets.flatten(0, -2))
            return
        geometry = ConvGeometry.of(self._layer)
        for part in _of_few_rows(sample):
            self._add(part, geometry)

    def result(self) -> list[Moments]:
        """Of every group; asked for once, since then the sums are given up."""
        sums, self._sums = self._sums, []
        return [replace(own.result(), independent=_INDEPENDENT * self._images) for own in sums]

    @property
    def _device(self) -> torch.device:
        return self._layer.weight.device

    def _add(self, sample: Sample, geometry: ConvGeometry) -> None:
        unfolded, wanted = numbers_of(geometry), _wanted(geometry)
        height, width = sample.targets.shape[2:]
        places = height * width
        rows_of_image = max(1, len(sample.targets) / sample.images) if sample.images else 1
        positions = sample.positions or places * rows_of_image
        count = min(places, math.ceil(wanted * places / (self._images * positions)))
        if not self._sums:
            in_all = self._images * min(positions, math.ceil(wanted / self._images))
            few = unfolded > _DENSE or in_all <= min(unfolded // 2, _MOST_KEPT)
            for _ in range(geometry.groups):
                dense = None if few else MomentSum(unfolded, geometry.group_outputs, self._device)
                self._sums.append(dense or SampleSum(_MOST_KEPT))
        chosen = torch.randperm(places, generator=self._generator)[:count]
        rows, columns = chosen // width, chosen % width
        x = patches(sample.inputs, geometry, rows, columns).flatten(0, 1)  # (S, C, kh, kw)
        t = sample.targets[:, :, rows, columns].permute(0, 2, 1).flatten(0, 1)  # (S, N)
        groups = (torch.chunk(part, geometry.groups, 1) for part in (x, t))
        for own, xs, ts in zip(self._sums, *groups, strict=True):
            own.add(xs.flatten(1), ts)


def numbers_of(geometry: ConvGeometry) -> int:
    """The unfolded inputs of a group: a covariance holds the square of these."""
    return geometry.group_inputs * geometry.kernel_size[0] * geometry.kernel_size[1]


def _wanted(geometry: ConvGeometry) -> int:
    """Samples of a layer."""
    unfolded = numbers_of(geometry)
    return _MOST_KEPT if unfolded > _DENSE else min(max(_FEWEST, _SAMPLES_PER_INPUT * unfolded), _MOST)


def layer_moments(
    layer: nn.Conv2d | nn.Linear, samples: Iterator[Sample], images: int, generator: torch.Generator
) -> list[Moments]:
    """The `LayerMoments` of all samples."""
    total = LayerMoments(layer, images, generator)
    for sample in samples:
        total.add(sample)
    return total.result()


def _of_few_rows(sample: Sample) -> Iterator[Sample]:
    """Many regions of an image in parts, so that not all of them are looked at in the same places."""
    if not sample.images or len(sample.targets) <= max(sample.images, _ROWS):
        yield sample
        return
    share = sample.images / len(sample.targets)
    for inputs, targets in zip(torch.split(sample.inputs, _ROWS), torch.split(sample.targets, _ROWS), strict=True):
        yield Sample(inputs, targets, share * len(targets), sample.positions)


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

    def of(self, calls: Sequence[fx.Node], batch: int | None = None) -> Iterator[Sample]:
        """The samples of a layer at its `calls`, so many images at a time (None: as the field says).

        The inputs of a call that reads what an earlier one gave are those that the student has while the layer in it
        is still the old one. Of a layer with several calls fewer images are computed at once: a batch has all of them.
        """
        for found in self.of_each((calls,), batch):
            yield from found[0]

    def of_each(
        self,
        layers: Sequence[Sequence[fx.Node]],
        batch: int | None = None,
        leave: Callable[[Tensor], None] | None = None,
    ) -> Iterator[list[list[Sample]]]:
        """Batch by batch the samples of several layers, each given by its calls, of one pass for all of them.

        `leave` is given the student's activations at the segment's exit, which is none of the network's outputs.
        """
        most = max(map(len, layers))
        size = max(1, (batch if batch is not None else self.batch) // most)
        norms = [self.network.following_norm.get(str(calls[0].target)) for calls in layers]
        skips = [[self._skip(node, norm) for node in calls] for calls, norm in zip(layers, norms, strict=True)]
        joined = [skip for each in skips for skip in each if skip is not None]
        inputs: list[list[Read]] = [[(node.all_input_nodes[0], node) for node in calls] for calls in layers]
        outputs: list[list[Read]] = [[(node, None) for node in calls] for calls in layers]
        read, given = [each for one in inputs for each in one], [each for one in outputs for each in one]
        end: list[Read] = [] if leave is None else [(self.segment.exit, next(iter(self.segment.exit.users)))]
        for start in range(0, len(self.images), size):
            at = slice(start, start + size)
            if self.student is self.teacher:
                student = teacher = self._run(self.teacher, self.teacher_entry, [*read, *given, *joined, *end], at)
            else:
                student = self._run(self.student, self.student_entry, [*read, *joined, *end], at)
                teacher = self._run(self.teacher, self.teacher_entry, [*given, *joined], at)
            if leave is not None:
                leave(student[end[0]])
            yield [
                list(self._samples(student, teacher, *one)) for one in zip(inputs, outputs, skips, norms, strict=True)
            ]

    def _samples(
        self,
        student: Mapping[Read, Tensor],
        teacher: Mapping[Read, Tensor],
        inputs: Sequence[Read],
        outputs: Sequence[Read],
        skips: Sequence[Read | None],
        norm: str | None,
    ) -> Iterator[Sample]:
        """Of one layer, from what was read in both networks."""
        positions = sum(teacher[each].shape[2:].numel() for each in outputs) if len(outputs) > 1 else None
        for given, output, skip in zip(inputs, outputs, skips, strict=True):
            targets = teacher[output]
            if skip is not None and teacher[skip].shape == targets.shape:
                correction = teacher[skip] - student[skip]
                targets = targets + _in_units_of(self.teacher, norm, correction)
            yield Sample(inputs=student[given], targets=targets, positions=positions)

    def _skip(self, node: fx.Node, norm_name: str | None) -> Read | None:
        """What is added to the output of a call, or of the norm that follows; None where nothing is."""
        last = next(iter(node.users)) if norm_name else node
        partner = self.network.residual_partner(last, self.student) if self.residual_targets else None
        return (partner[1], next(iter(partner[0].users))) if partner is not None else None

    def _run(self, root: nn.Module, entry: Boundary, wanted: Sequence[Read], at: slice) -> dict[Read, Tensor]:
        """The wanted values as they are when they are read, whatever writes into them before or after."""
        device = next(root.parameters()).device
        environment: Environment = {self.segment.entry: entry[at].to(device)}
        if self.segment.entry is not self.network.source:
            environment[self.network.source] = self.images[at].clone().to(device)
        needed = needed_for(root, wanted, self.segment.nodes)
        place = {node: index for index, node in enumerate(self.segment.nodes)}
        after: dict[fx.Node | None, list[Read]] = {}  # the last of the needed nodes before each is read
        for node, reader in wanted:
            end = place.get(reader, len(place)) if reader is not None else place[node] + 1
            last = next((before for before in reversed(needed) if place[before] < end), None)
            after.setdefault(last, []).append((node, reader))
        found: dict[Read, Tensor] = {}

        def note(ran: fx.Node | None, value: object = None) -> None:
            found.update({each: environment[each[0]] for each in after.get(ran, ())})

        def spare(node: fx.Node, first: object) -> None:
            """Copy what was read before an operator writes into the memory that it is in."""
            if writes(root, node):
                held = [each for each, read in found.items() if _may_share(read, first)]
                found.update({each: found[each].clone() for each in held})

        note(None)
        run_nodes(root, needed, environment, keep=[node for node, _ in wanted], before=spare, after=note)
        return found


def _may_share(tensor: Tensor, other: object) -> bool:
    """Whether two values may be in one memory; two tensors are where they have one storage."""
    if not isinstance(other, Tensor):
        return True
    return tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


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
