"""Where the plan of a conversion comes from: a file that states it, or the options for all layers and for some."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vfconvert.analysis.profile import Profile
from vfconvert.options import ConversionOptions
from vfconvert.plan_file import read_plan, speaks_of_linears
from vfconvert.planning import Plan, make_plan
from vfconvert.wishes import Wish, check_wishes


def check_plan_options(options: ConversionOptions) -> None:
    """Before any work: raise `IllegalSpecError` on numbers that no layer can have."""
    check_wishes(_wish_of(options), options.layers)


def linears_wanted(options: ConversionOptions, content: bytes | None = None) -> bool:
    """Whether Linear layers on flattened maps count as convolutions. Raises `PlanFileError`."""
    return options.linear if options.plan is None else speaks_of_linears(options.plan, content)


def plan_of(
    options: ConversionOptions,
    teacher: nn.Module,
    layers: Profile,
    norms: Mapping[str, str],
    content: bytes | None = None,
) -> Plan:
    """The plan that the options state; `norms`: layer -> the BatchNorm that alone reads its output.

    `content` is what the plan file holds, where a caller has it in memory.
    Raises what `read_plan` raises where there is a plan file, else what `make_plan` raises.
    """
    if options.plan is not None:
        return read_plan(options.plan, teacher, layers, norms, content)
    return make_plan(
        teacher,
        layers,
        norms,
        _wish_of(options),
        include=options.include,
        exclude=options.exclude,
        include_first=options.include_first,
        overrides=options.layers,
    )


def _wish_of(options: ConversionOptions) -> Wish:
    everything = options.searches and not (options.spatial or options.channel)
    return Wish(
        spatial=options.spatial or everything,
        channel=options.channel or everything,
        windows=options.windows,
        channel_stride=options.channel_stride,
        crops=options.crops,
    )
