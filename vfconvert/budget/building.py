"""The table of options of a network, from what each option harms and what it costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import nn

from vfconvert.analysis.profile import LayerProfile, Profile
from vfconvert.analysis.totals import Totals, converted_numbers, ordinary_numbers
from vfconvert.budget.damage import Harm
from vfconvert.budget.table import KEEP, LayerOptions, Option, OptionTable
from vfconvert.errors import BudgetError
from vfconvert.lowering.costs import CostTable
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import PLAIN
from vfconvert.planning import Convert, Keep, Plan
from vfconvert.progress import Progress, no_progress
from vfconvert.specs import ConvGeometry

_MOST_UNEXPLAINED = 0.95


def option_table(
    plan: Plan,
    layers: Profile,
    before: Totals,
    harms: Mapping[str, Sequence[Harm]],
    measure: str,
    kinds: Collection[str],
    *,
    traced: bool = True,
) -> OptionTable:
    """The options of `kinds` for each layer that `plan` converts, as far as they make it smaller or quicker.

    `before` are the totals of the original network, `harms` the options of each layer by name. Parameters are the
    layer's own: bank, bias, and scales where no norm follows.
    """
    found: list[LayerOptions] = []
    kept: list[Keep] = list(plan.kept)
    for decision in plan.converted:
        options = _options(decision, layers.layer(decision.layer), harms[decision.layer], kinds, traced)
        if len(options) > 1:
            found.append(
                LayerOptions(
                    layer=decision.layer, geometry=decision.geometry, norm=decision.norm, options=tuple(options)
                )
            )
        else:
            reason = "none of the kinds that are allowed makes it smaller"
            kept.append(Keep(layer=decision.layer, geometry=decision.geometry, code="would-not-shrink", reason=reason))
    return OptionTable(
        layers=tuple(found),
        kept=tuple(kept),
        order=tuple(decision.layer for decision in plan.decisions),
        parameters=before.numbers.parameters,
        statistics=before.numbers.norm_statistics,
        macs=before.macs_executed,
        measure=measure,
        traced=traced,
    )


def damage_of(harm: Harm) -> float:
    """The damage that plans count: what is unexplained for each part that is explained, in the units of the harm.

    A layer that keeps little of its output leaves the layers after it less to be fitted to, so the last of it costs
    more than the first: random plans of a ResNet-20 rank so as they do by accuracy (`benchmarks.plans`).
    """
    return harm.damage / (1 - min(harm.unexplained, _MOST_UNEXPLAINED))


def _options(
    decision: Convert, layer: LayerProfile, harms: Sequence[Harm], kinds: Collection[str], traced: bool
) -> list[Option]:
    geometry = decision.geometry
    ordinary, numbers = geometry.weight_numbers, ordinary_numbers(geometry)
    options = [
        Option(
            kind=KEEP,
            spec=None,
            parameters=numbers,
            macs=ordinary * layer.output_positions,
            damage=0.0,
            unexplained=0.0,
        )
    ]
    for harm in harms:
        parameters = converted_numbers(harm.spec, decision.new_geometry, decision.norm)
        if harm.kind not in kinds or parameters >= numbers:
            continue
        options.append(
            Option(
                kind=harm.kind,
                spec=harm.spec,
                parameters=parameters,
                macs=(harm.products if traced else ordinary) * layer.output_positions,
                damage=damage_of(harm),
                unexplained=harm.unexplained,
            )
        )
    return options


def timed(
    table: OptionTable,
    teacher: nn.Module,
    layers: Profile,
    costs: CostTable,
    whole: float,
    progress: Progress = no_progress,
) -> OptionTable:
    """The table with the seconds of every option in its fastest form, measured on each layer's own shape.

    `whole` is the time of the original network in the same runtime. What is measured of a layer alone is not quite
    what it takes within the network: where all layers take longer than the whole, they share it out.

    Raises `BudgetError` where a table of another machine lacks a layer: times of two machines do not add up.
    """
    found = []
    for number, layer in enumerate(table.layers):
        profiled = layers.layer(layer.layer)
        norm = teacher.get_submodule(layer.norm) if layer.norm is not None else None
        following = norm if isinstance(norm, nn.BatchNorm2d) else None
        made = [_layer(layer, option) for option in layer.options if option.spec is not None]
        if costs.foreign and not all(costs.knows(one, profiled, following) for one in made):
            raise BudgetError(f"{layer.layer}: {lacking(costs)}")
        measured = [costs.costs(one, profiled, following) for one in made]
        plain = median(times[PLAIN] for times in measured)
        # Ratios within one run hold where single times do not.
        shares = (1.0, *((min(times.values()) / times[PLAIN] if table.traced else 1.0) for times in measured))
        options = zip(layer.options, shares, strict=True)
        found.append(replace(layer, options=tuple(replace(o, seconds=plain * share) for o, share in options)))
        progress("measure options", number + 1, len(table.layers))
    alone = sum(layer.options[0].seconds or 0.0 for layer in found)
    if alone > whole:
        found = [_scaled(layer, whole / alone) for layer in found]
    return replace(table, layers=tuple(found), seconds=whole)


def lacking(costs: CostTable) -> str:
    """What is wrong with a table of another machine that lacks something, and what to do."""
    return (
        f"not timed in the table of --costs, which is of another machine ({costs.machine}); complete it there: "
        f"`vfconvert inspect MODEL --measure --costs FILE --threads {costs.threads}`"
    )


def rescaled(table: OptionTable, factor: float) -> OptionTable:
    """The table with every saving of time multiplied by `factor`: what layers save alone is more than together."""

    def less(layer: LayerOptions) -> LayerOptions:
        plain = layer.options[0].seconds or 0.0
        seconds = [plain - factor * (plain - (option.seconds or 0.0)) for option in layer.options]
        made = zip(layer.options, seconds, strict=True)
        return replace(layer, options=tuple(replace(option, seconds=max(time, 0.0)) for option, time in made))

    return replace(table, layers=tuple(map(less, table.layers)))


def _scaled(layer: LayerOptions, factor: float) -> LayerOptions:
    return replace(layer, options=tuple(replace(o, seconds=factor * (o.seconds or 0.0)) for o in layer.options))


def _layer(layer: LayerOptions, option: Option) -> VersatileConv2d:
    """A layer of the option's shape; weights are random, since they do not change what is computed."""
    if option.spec is None:
        raise ValueError(f"{layer.layer}: an option without a spec has no versatile layer")
    geometry: ConvGeometry = replace(layer.geometry, bias=layer.norm is None)
    with torch.random.fork_rng(devices=[]):
        return VersatileConv2d(geometry, option.spec, scale=layer.norm is None)
