"""Tables of what other methods can make of each layer, for the same knapsack, and the students of a choice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import smaller
from benchmarks.repair import Maker, repair
from benchmarks.subjects import Bench
from vfconvert.budget.sensitivity import sensitivity_of
from vfconvert.budget.table import KEEP, LayerOptions, Option, OptionTable
from vfconvert.fitting.boundary import Boundary, advance
from vfconvert.fitting.samples import SegmentSamples, layer_moments, usual_batch
from vfconvert.ops.moments import Moments
from vfconvert.specs import ConvGeometry

_SHARES = [step / 12 for step in range(2, 12)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """The table, and for every layer of it what each option does: a maker, or the channels of a block that stay."""

    table: OptionTable
    made: dict[str, list[Maker | Tensor | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A layer with its moments on the teacher's inputs; positions of its output and of its input."""

    name: str
    layer: nn.Conv2d
    moments: Moments
    reaction: Tensor
    positions: int
    read: int


def student_of(bench: Bench, method: Method, chosen: tuple[int, ...]) -> nn.Module:
    """The repaired student of a choice."""
    picked = {
        layer.layer: method.made[layer.layer][index]
        for layer, index in zip(method.table.layers, chosen, strict=True)
        if index
    }
    makers = {name: made for name, made in picked.items() if not isinstance(made, Tensor)}
    blocks = {name: made for name, made in picked.items() if isinstance(made, Tensor)}
    student = copy.deepcopy(bench.teacher)
    for name, stay in blocks.items():
        cut(student.get_submodule(name.removesuffix(".conv2")), stay)
    return repair(
        bench.teacher,
        bench.network,
        bench.images,
        bench.options(),
        makers,
        student,
        {name.removesuffix("2") + "1": stay for name, stay in blocks.items()},
    )


def _factors(bench: Bench, kind: str) -> Method:
    made: dict[str, list[Maker | Tensor | None]] = {}
    layers = []
    for found in _moments(bench):
        outputs, inputs = found.layer.out_channels, found.layer.in_channels
        taps = found.layer.kernel_size[0] * found.layer.kernel_size[1]
        makers: list[Maker | Tensor | None] = [None]
        options = [_kept(found)]
        for rank in sorted({max(1, round(share * outputs)) for share in _SHARES}):
            for narrow in (
                sorted({max(1, round(share * inputs)) for share in _SHARES[::2]}) if kind == "tucker" else [0]
            ):
                numbers = rank * (taps * (narrow or inputs) + outputs) + narrow * inputs
                macs = rank * (taps * (narrow or inputs) + outputs) * found.positions + narrow * inputs * found.read
                maker = (
                    partial(smaller.tucker, ranks=(narrow, rank)) if narrow else partial(smaller.low_rank, rank=rank)
                )
                if numbers < options[0].parameters and inputs >= 8:
                    weight = maker(found.layer, found.moments, found.reaction).expanded_weight()
                    makers.append(maker)
                    options.append(_option(found, kind, numbers, macs, smaller.unexplained(found.moments, weight)))
        made[found.name] = makers
        layers.append(_layer(found, options))
    return Method(table=_table(bench, layers), made=made)


def _groups(bench: Bench) -> Method:
    made: dict[str, list[Maker | Tensor | None]] = {}
    layers = []
    for found in _moments(bench):
        makers: list[Maker | Tensor | None] = [None]
        options = [_kept(found)]
        for groups in (2, 4, 8):
            if found.layer.in_channels % groups == 0 and found.layer.out_channels % groups == 0:
                maker = partial(smaller.grouped, groups=groups)
                weight = maker(found.layer, found.moments, found.reaction).expanded_weight()
                numbers = options[0].parameters // groups
                makers.append(maker)
                left = smaller.unexplained(found.moments, weight)
                options.append(_option(found, "group", numbers, numbers * found.positions, left))
        made[found.name] = makers
        layers.append(_layer(found, options))
    return Method(table=_table(bench, layers), made=made)


def _pruned(bench: Bench) -> Method:
    """Blocks by the name of their second convolution: what is left of its output when it reads fewer channels."""
    made: dict[str, list[Maker | Tensor | None]] = {}
    layers = []
    for found in _moments(bench):
        if not found.name.endswith(".conv2"):
            continue
        block = bench.teacher.get_submodule(found.name.removesuffix(".conv2"))
        order = ranking(block)  # the least important channel first
        first, width = block.conv1, len(order)
        both = [module.weight.numel() for module in (first, found.layer, block.bn1)]
        numbers = sum(both) + block.bn1.bias.numel()
        macs = (both[0] + both[1]) * found.positions
        stays: list[Maker | Tensor | None] = [None]
        options = [Option(kind=KEEP, spec=None, parameters=numbers, macs=macs, damage=0.0, unexplained=0.0)]
        taps = found.layer.kernel_size[0] * found.layer.kernel_size[1]
        for kept in sorted({max(1, round(share * width)) for share in _SHARES}):
            stay = order[width - kept :].sort().values
            at = (stay[:, None] * taps + torch.arange(taps)).flatten()
            left = smaller.refitted(found.moments, at)
            stays.append(stay)
            options.append(_option(found, "prune", numbers * kept // width, macs * kept // width, left))
        made[found.name] = stays
        layers.append(_layer(found, options))
    return Method(table=_table(bench, layers), made=made)


METHODS: dict[str, Callable[[Bench], Method]] = {
    "svd": partial(_factors, kind="svd"),
    "tucker": partial(_factors, kind="tucker"),
    "group": _groups,
    "prune": _pruned,
}


def ranking(block: nn.Module) -> Tensor:
    """The inner channels of a block by Torch-Pruning's group magnitude, the least important first."""
    import torch_pruning as tp

    _, group = _inside(block, None)
    importance = tp.importance.GroupMagnitudeImportance(p=2)(group)
    return torch.argsort(importance)


def cut(block: nn.Module, stay: Tensor) -> None:
    """Have Torch-Pruning take all inner channels but `stay` out of a block, in place."""
    drop = sorted(set(range(block.conv1.out_channels)) - set(stay.tolist()))
    inside, group = _inside(block, drop)
    group.prune()
    inside.requires_grad_(False)


def _inside(block: nn.Module, channels: list[int] | None):  # type: ignore[no-untyped-def]
    import torch_pruning as tp

    inside = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2).requires_grad_(
        True
    )  # it is traced by its gradients
    graph = tp.DependencyGraph().build_dependency(inside, torch.zeros(1, block.conv1.in_channels, 8, 8))
    wanted = list(range(block.conv1.out_channels)) if channels is None else channels
    return inside, graph.get_pruning_group(block.conv1, tp.prune_conv_out_channels, idxs=wanted)


def _moments(bench: Bench) -> Iterator[_Found]:
    """Every convolution that a BatchNorm follows, with its moments on the teacher's own inputs."""
    names = [name for name in bench.network.following_norm if "." in name]  # not the stem, which no method can shrink
    reactions = sensitivity_of(bench.teacher, names, bench.images, seed=bench.seed).by_layer
    generator = torch.Generator().manual_seed(bench.seed)
    entry = Boundary.of(bench.images)
    batch = usual_batch(bench.network, next(bench.teacher.parameters()).device)
    for segment in bench.network.segments:
        samples = SegmentSamples(
            bench.network,
            segment,
            bench.teacher,
            bench.teacher,
            entry,
            entry,
            bench.images,
            batch=batch,
        )
        for node in segment.nodes:
            name = str(node.target)
            if name in names:
                layer, profiled = bench.teacher.get_submodule(name), bench.layers.layer(name)
                with torch.no_grad():
                    moments = layer_moments(layer, samples.of([node]), len(bench.images), generator)
                yield _Found(
                    name=name,
                    layer=layer,
                    moments=moments[0],
                    reaction=reactions[name],
                    positions=profiled.output_positions,
                    read=profiled.output_positions * layer.stride[0] * layer.stride[1],
                )
        if segment.exit.op == "output":
            return
        entry = advance(bench.teacher, segment, bench.network.source, bench.images, entry, batch)


def _kept(found: _Found) -> Option:
    numbers = found.layer.weight.numel()
    return Option(kind=KEEP, spec=None, parameters=numbers, macs=numbers * found.positions, damage=0.0, unexplained=0.0)


def _option(found: _Found, kind: str, numbers: int, macs: int, left: Tensor) -> Option:
    """Damage as `vfconvert.budget.building.damage_of` counts it."""
    share = float((found.reaction * left).sum() / (found.reaction * found.moments.target_variance).sum())
    damage = 0.5 * float((found.reaction * left).sum()) / (1 - min(share, 0.95))
    return Option(kind=kind, spec=None, parameters=numbers, macs=macs, damage=damage, unexplained=share)


def _layer(found: _Found, options: list[Option]) -> LayerOptions:
    geometry = ConvGeometry.of(found.layer)
    return LayerOptions(layer=found.name, geometry=geometry, norm=None, options=tuple(options))


def _table(bench: Bench, layers: list[LayerOptions]) -> OptionTable:
    return OptionTable(
        layers=tuple(layers),
        kept=(),
        order=tuple(layer.layer for layer in layers),
        parameters=bench.table.parameters,
        statistics=bench.table.statistics,
        macs=bench.table.macs,
        measure=bench.table.measure,
    )
