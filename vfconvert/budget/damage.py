"""What each option of each layer harms, measured once on the teacher, and what it costs: the table that plans need.

Damage of an option: `1/2 sum_o G_o r_o`, with `G_o` the sensitivity of the network to output `o` of the layer
(`vfconvert.budget.sensitivity`), of all its calls together, and `r_o` the variance of that output which the closed-form
fit leaves unexplained, over the positions of all calls, on the teacher's own inputs. The fit itself later uses the
student's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from vfconvert.analysis.graph import Network
from vfconvert.budget.candidates import Family, families_of
from vfconvert.budget.sensitivity import Sensitivity
from vfconvert.errors import FitError
from vfconvert.fitting.boundary import Boundary, advance
from vfconvert.fitting.passes import Passes
from vfconvert.fitting.samples import Sample, SegmentSamples, layer_moments, usual_batch
from vfconvert.fitting.untraced import WholePassSamples, calls_of
from vfconvert.ops.blocks import blocks_of, products
from vfconvert.ops.estimate import estimates
from vfconvert.ops.metric import metric_of
from vfconvert.ops.moments import Moments
from vfconvert.ops.problem import Problem
from vfconvert.progress import Progress, no_progress
from vfconvert.specs import ConvGeometry, VersatileSpec

_MOST_OUTPUTS = 256  # of a group that are estimated; of more a sample stands for all


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
    batch = usual_batch(network) if batch is None else batch
    for name, samples in _samples(teacher, network, images, set(geometries), batch):
        layer = teacher.get_submodule(name)
        if isinstance(layer, nn.Conv2d) and name not in found:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            with torch.no_grad():
                moments = layer_moments(layer, samples, len(images), generator)
                weight = layer.weight.detach().cpu().flatten(1)
                none = torch.zeros(layer.out_channels, dtype=torch.float64)  # no output depends on it by a gradient
                reaction = sensitivity.by_layer.get(name, none)
                sample = _sample(geometries[name], generator)
                found[name] = tuple(
                    harm
                    for family in families_of(geometries[name])
                    for harm in _harms(family, geometries[name], moments, reaction, weight, sample)
                )
            progress("damage", len(found), len(geometries))
    return found


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
) -> Iterator[Harm]:
    outputs, sampled = geometry.group_outputs, replace(geometry, out_channels=geometry.groups * len(sample))
    counts = [-(-count * len(sample) // outputs) for count in family.primaries]
    shares = torch.zeros(len(family.primaries), dtype=torch.float64)
    rows: list[list[Tensor]] = [[] for _ in family.primaries]
    whole = 0.0
    for group, found in enumerate(moments):
        mine = slice(group * outputs, (group + 1) * outputs)
        if not (metric_of(found.covariance).finite() and bool(torch.isfinite(found.cross).all())):
            raise FitError("the network's activations are not finite on the calibration images: check --mean and --std")
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
    for count, few, share, own in zip(family.primaries, counts, shares.tolist(), rows, strict=True):
        executed = _products(sampled, spec_with(family.spec, sampled, few), torch.cat(own))
        yield Harm(
            kind=family.kind,
            spec=spec_with(family.spec, geometry, count),
            unexplained=share / max(whole, 1e-30),
            damage=0.5 * share,
            products=executed * outputs // len(sample),
        )


def spec_with(spec: VersatileSpec, geometry: ConvGeometry, count: int) -> VersatileSpec:
    """The spec with so many primary filters of a group; as it is where that is the fewest."""
    return spec if count == spec.fewest_primaries(geometry) else replace(spec, group_primaries=count)


def _products(geometry: ConvGeometry, spec: VersatileSpec, rows: Tensor) -> int:
    # The fit may give the groups of a layer different crops, which no grouped convolution computes side by side.
    blocks = blocks_of(geometry, spec, rows.tolist()) if geometry.groups == 1 else None
    if blocks is None:
        return geometry.weight_numbers
    return min(geometry.weight_numbers, products(blocks, spec, geometry.group_inputs, "segments"))


def _samples(
    teacher: nn.Module, network: Network | None, images: Tensor, wanted: set[str], batch: int
) -> Iterator[tuple[str, Iterator[Sample]]]:
    """The wanted layers in forward order, each with its samples; activations are held at one boundary only."""
    if network is None:
        passes = Passes(teacher)
        whole = WholePassSamples(passes, passes, images, calls_of(teacher, images))
        yield from ((name, whole.of(name, batch)) for name in sorted(wanted))
        return
    entry = Boundary.of(images)
    for segment in network.segments:
        samples = SegmentSamples(network, segment, teacher, teacher, entry, entry, images, residual_targets=False)
        mine: dict[str, list[fx.Node]] = {}
        for node in segment.nodes:
            if node.op == "call_module" and str(node.target) in wanted:
                mine.setdefault(str(node.target), []).append(node)
        yield from ((name, samples.of(calls, batch)) for name, calls in mine.items())
        if segment.exit.op == "output":
            return
        entry = advance(teacher, segment, network.source, images, entry, batch)
