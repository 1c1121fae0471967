"""What each option of each layer harms, measured once on the teacher, and what it costs: the table that plans need.

Damage of an option: `1/2 sum_o G_o r_o`, with `G_o` the sensitivity of the network to output `o` of the layer
(`vfconvert.budget.sensitivity`), of all its calls together, and `r_o` the variance of that output which the closed-form
fit leaves unexplained, over the positions of all calls, on the teacher's own inputs. The fit itself later uses the
student's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network
from vfconvert.budget.candidates import Family, families_of
from vfconvert.budget.sensitivity import Sensitivity
from vfconvert.errors import FitError
from vfconvert.fitting.boundary import Boundary, Filling, advance
from vfconvert.fitting.passes import Passes
from vfconvert.fitting.samples import LayerMoments, Sample, SegmentSamples, numbers_of, usual_batch
from vfconvert.fitting.untraced import WholePassSamples, calls_of
from vfconvert.ops.blocks import blocks_of, products
from vfconvert.ops.estimate import estimates
from vfconvert.ops.metric import metric_of
from vfconvert.ops.moments import Moments
from vfconvert.ops.problem import Problem
from vfconvert.progress import Progress, no_progress
from vfconvert.specs import ConvGeometry, VersatileSpec
from vfconvert.threads import side_by_side

_MOST_OUTPUTS = 256  # of a group that are estimated; of more a sample stands for all
# Layers that one pass gives samples of: their inputs and outputs are held for a batch, their covariances for all.
_TOGETHER, _MOST_NUMBERS = 4, 2**27
_FAMILY_NUMBERS = 2**26  # inputs by inputs of the families that are looked at at once, each of which holds some of them


@dataclass(frozen=True, kw_only=True, slots=True)
class Harm:
    """One option of one layer: `products` are multiply-adds of an output position, as the estimate assigns outputs."""

    kind: str
    spec: VersatileSpec
    unexplained: float
    damage: float
    products: int


def harms_of(
    teacher: nn.Module,
    network: Network | None,
    geometries: Mapping[str, ConvGeometry],
    sensitivity: Sensitivity,
    images: Tensor,
    *,
    seed: int,
    batch: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, tuple[Harm, ...]]:
    """The options of every layer of `geometries`, from its moments on `images` `(N, C, H, W)`, `batch` at a time.

    The teacher, in evaluation mode, is left as it was. What is found of a layer does not depend on what other layers
    are asked for.
    """
    found = dict[str, tuple[Harm, ...]]()
    batch = usual_batch(network, next(teacher.parameters()).device) if batch is None else batch
    layers = {name: teacher.get_submodule(name) for name in geometries}
    pupils = {
        name: _Pupil.of(name, layer, len(images), seed)
        for name, layer in layers.items()
        if isinstance(layer, nn.Conv2d)
    }
    with torch.no_grad():
        for name, moments in _moments(teacher, network, images, pupils, batch):
            layer, geometry = pupils[name].layer, geometries[name]
            weight = layer.weight.detach().cpu().flatten(1)
            none = torch.zeros(layer.out_channels, dtype=torch.float64)  # no output depends on it by a gradient
            reaction = sensitivity.by_layer.get(name, none)
            sample = _sample(geometry, pupils[name].generator)
            look = partial(
                _harms, geometry=geometry, moments=moments, sensitivity=reaction, weight=weight, sample=sample
            )
            at_once = max(1, _FAMILY_NUMBERS // numbers_of(geometry) ** 2)
            found[name] = tuple(chain.from_iterable(side_by_side(look, families_of(geometry), at_once, _work_of)))
            progress("damage", len(found), len(geometries))
    return found


@dataclass(frozen=True, eq=False)
class _Pupil:
    """A layer that is looked at; its moments are summed with the numbers that its own generator draws."""

    layer: nn.Conv2d
    generator: torch.Generator
    moments: LayerMoments

    @classmethod
    def of(cls, name: str, layer: nn.Conv2d, images: int, seed: int) -> _Pupil:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        return cls(layer, generator, LayerMoments(layer, images, generator))


def _work_of(family: Family) -> float:
    """How long a family is looked at, roughly: filters cut out of a primary, for every number of these."""
    return len(family.spec.crops) * family.spec.window_choices * len(family.primaries)


def _sample(geometry: ConvGeometry, generator: torch.Generator) -> Tensor:
    """The outputs of a group that are estimated, in order."""
    outputs = geometry.group_outputs
    if outputs <= _MOST_OUTPUTS:
        return torch.arange(outputs)
    return torch.randperm(outputs, generator=generator)[:_MOST_OUTPUTS].sort().values


def _harms(
    family: Family,
    geometry: ConvGeometry,
    moments: list[Moments],
    sensitivity: Tensor,
    weight: Tensor,
    sample: Tensor,
) -> list[Harm]:
    outputs, sampled = geometry.group_outputs, replace(geometry, out_channels=geometry.groups * len(sample))
    counts = [-(-count * len(sample) // outputs) for count in family.primaries]
    shares = torch.zeros(len(family.primaries), dtype=torch.float64)
    rows: list[list[Tensor]] = [[] for _ in family.primaries]
    whole = 0.0
    for group, found in enumerate(moments):
        mine = slice(group * outputs, (group + 1) * outputs)
        if not (metric_of(found.covariance).finite() and bool(torch.isfinite(found.cross).all())):
            raise FitError("the network's activations are not finite on these images: check them, --mean and --std")
        some = replace(
            found,
            cross=found.cross[:, sample],
            target_mean=found.target_mean[sample],
            target_variance=found.target_variance[sample],
        )
        problem = Problem.of(some, sampled, family.spec, sensitivity[mine][sample], weight[mine][sample])
        energy = float((sensitivity[mine] * found.target_variance).sum())
        whole += energy
        for index, (count, made) in enumerate(zip(counts, estimates(problem, counts), strict=True)):
            shares[index] += made.unexplained * energy
            rows[index].append(made.mask * count * geometry.groups + group * count + made.primary)
    harms = []
    for count, few, share, own in zip(family.primaries, counts, shares.tolist(), rows, strict=True):
        executed = _products(sampled, spec_with(family.spec, sampled, few), torch.cat(own))
        harm = Harm(
            kind=family.kind,
            spec=spec_with(family.spec, geometry, count),
            unexplained=share / max(whole, 1e-30),
            damage=0.5 * share,
            products=executed * outputs // len(sample),
        )
        harms.append(harm)
    return harms


def spec_with(spec: VersatileSpec, geometry: ConvGeometry, count: int) -> VersatileSpec:
    """The spec with so many primary filters of a group; as it is where that is the fewest."""
    return spec if count == spec.fewest_primaries(geometry) else replace(spec, group_primaries=count)


def _products(geometry: ConvGeometry, spec: VersatileSpec, rows: Tensor) -> int:
    # The fit may give the groups of a layer different crops, which no grouped convolution computes side by side.
    blocks = blocks_of(geometry, spec, rows.tolist()) if geometry.groups == 1 else None
    if blocks is None:
        return geometry.weight_numbers
    return min(geometry.weight_numbers, products(blocks, spec, geometry.group_inputs, "segments"))


def _moments(
    teacher: nn.Module, network: Network | None, images: Tensor, pupils: Mapping[str, _Pupil], batch: int
) -> Iterator[tuple[str, list[Moments]]]:
    """The moments of every layer, in forward order; activations are held at one boundary only."""
    if network is None:
        passes = Passes(teacher)
        whole = WholePassSamples(passes, passes, images, calls_of(teacher, images))
        for name in sorted(pupils):
            yield from _summed({name: pupils[name]}, ([[sample]] for sample in whole.of(name, batch)))
        return
    entry, seen = Boundary.of(images), set[str]()
    for segment in network.segments:
        samples = SegmentSamples(network, segment, teacher, teacher, entry, entry, images, residual_targets=False)
        calls: dict[str, list[fx.Node]] = {}
        for node in segment.nodes:
            if node.op == "call_module" and str(node.target) in pupils.keys() - seen:
                calls.setdefault(str(node.target), []).append(node)
        seen |= calls.keys()
        leaving = Filling(len(images)) if segment.exit.op != "output" else None
        parts = list(_parts(calls, pupils))
        for number, part in enumerate(parts):
            leave = leaving.add if leaving is not None and number == len(parts) - 1 else None
            some = {name: pupils[name] for name in part}
            yield from _summed(some, samples.of_each([calls[name] for name in part], batch, leave))
        if leaving is None:
            return
        entry = leaving.result() if parts else advance(teacher, segment, network.source, images, entry, batch)


def _summed(pupils: Mapping[str, _Pupil], batches: Iterator[list[list[Sample]]]) -> Iterator[tuple[str, list[Moments]]]:
    """The moments of some layers, of batches that hold the samples of each."""
    for batch in batches:
        for pupil, samples in zip(pupils.values(), batch, strict=True):
            for sample in samples:
                pupil.moments.add(sample)
    yield from ((name, pupil.moments.result()) for name, pupil in pupils.items())


def _parts(calls: Mapping[str, Sequence[fx.Node]], pupils: Mapping[str, _Pupil]) -> Iterator[list[str]]:
    """The layers of a segment whose samples one pass gives: of as many calls, and as few as memory holds."""
    part: list[str] = []
    held = 0
    for name, own in calls.items():
        numbers = pupils[name].layer.groups * numbers_of(ConvGeometry.of(pupils[name].layer)) ** 2
        alike = not part or len(calls[part[0]]) == len(own)
        if part and not (alike and len(part) < _TOGETHER and held + numbers <= _MOST_NUMBERS):
            yield part
            part, held = [], 0
        part.append(name)
        held += numbers
    if part:
        yield part
