"""The plan: for every Conv2d of a network, convert it to a spec or keep it for a reason. Plain, frozen data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import nn

from vfconvert.analysis.profile import Profile, module_names
from vfconvert.eligibility import Facts, Reason, facts_of, reason_to_keep, unmatched
from vfconvert.errors import IllegalSpecError, NoConvolutionError, NothingEligibleError, SelectionError
from vfconvert.overrides import Override
from vfconvert.specs import ConvGeometry, VersatileSpec
from vfconvert.wishes import Wish as Wish
from vfconvert.wishes import wish_of

MOST_INPUTS = 65_536  # unfolded inputs of a filter: 4,096 samples of them take 1 GiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Convert:
    """Replace the layer by a versatile convolution of this spec.

    `norm` is the BatchNorm that follows and takes the layer's scales and bias; where there is none the new layer
    has a scale and a bias of its own.
    """

    layer: str
    geometry: ConvGeometry
    spec: VersatileSpec
    norm: str | None = None

    @property
    def new_geometry(self) -> ConvGeometry:
        """The geometry of the versatile layer: that of the old one but for the bias."""
        return replace(self.geometry, bias=self.norm is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """Leave the layer as it is. `code` is a stable word for scripts, `reason` a sentence for people."""

    layer: str
    geometry: ConvGeometry
    code: str
    reason: str


Decision = Convert | Keep


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One decision for every Conv2d, in the order of `named_modules`."""

    decisions: tuple[Decision, ...]

    @property
    def converted(self) -> tuple[Convert, ...]:
        """The layers that will be replaced."""
        return tuple(d for d in self.decisions if isinstance(d, Convert))

    @property
    def kept(self) -> tuple[Keep, ...]:
        """The layers that stay, each with its reason."""
        return tuple(d for d in self.decisions if isinstance(d, Keep))


def make_plan(
    model: nn.Module,
    profile: Profile,
    norms: Mapping[str, str],
    wish: Wish,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_first: bool = False,
    overrides: Sequence[Override] = (),
) -> Plan:
    """Decide about every Conv2d of a network. `norms`: layer -> the BatchNorm that alone reads its output.

    The last of `overrides` whose glob matches a layer stands in for `wish` there, and says that the first convolution
    may be converted; `include` and `exclude` go on selecting. A wish for neither crops nor windows keeps the others.
    Raises `NoConvolutionError`, `NothingEligibleError` (with the reasons), `SelectionError` where a glob matches
    nothing, `IllegalSpecError` where a channel stride fits no layer at all or a number of primaries not its layer.
    """
    every = facts_of(model, profile, module_names(model), include=include, exclude=exclude, include_first=include_first)
    check_convolutions(model, every)
    globs = (*include, *exclude, *(override.glob for override in overrides))
    _check_globs(globs, [name for facts in every for name in facts.called])
    wishes = {override: wish_of(override, wish) for override in overrides}  # refused numbers before all else
    chosen = [next((o for o in reversed(overrides) if facts.matches(o.glob)), None) for facts in every]
    _check_strides(wish, wishes, [facts.geometry for facts in every], chosen)
    decisions = []
    unnamed = "not-included", f"no --layer matches (given: {', '.join(override.glob for override in overrides)})"
    only_named = bool(overrides) and not (wish.spatial or wish.channel)
    for facts, override in zip(every, chosen, strict=True):
        own, stays, asked = wish, None, ""
        if override is not None:
            asked, wanted = f"--layer {override}", wishes[override]
            own, stays = wanted or wish, ("excluded", asked) if wanted is None else None
        elif only_named:
            stays = unnamed
        known = replace(facts, include_first=True) if override is not None or only_named else facts
        decisions.append(_decision(known, stays, own, norms.get(facts.name), asked))
    plan = Plan(decisions=tuple(decisions))
    check_something_converted(plan)
    return plan


def check_convolutions(model: nn.Module, every: Sequence[Facts]) -> None:
    """Raise `NoConvolutionError` where there are no facts of any layer of this model."""
    if not every:
        raise NoConvolutionError(
            f"{type(model).__name__} has no Conv2d layer, so there is nothing to convert; give a convolutional network"
        )


def check_something_converted(plan: Plan) -> None:
    """Raise `NothingEligibleError`, with the reasons, where a plan keeps every layer."""
    if plan.converted:
        return
    counts = Counter(keep.code for keep in plan.kept)
    first = plan.kept[0]
    raise NothingEligibleError(
        f"none of the {len(plan.kept)} Conv2d layers can be converted "
        f"({', '.join(f'{code}: {count}' for code, count in counts.most_common())}); "
        f"for instance {first.layer}: {first.reason}"
    )


def _decision(facts: Facts, stays: Reason | None, wish: Wish, norm: str | None, asked: str) -> Decision:
    geometry = facts.geometry
    fewest = replace(wish, primaries=None).spec_of(geometry)
    reason = reason_to_keep(facts) or stays or no_gain(geometry, fewest, channel=wish.channel, norm=norm is not None)
    spec = wish.spec_of(geometry)
    if reason is None and spec != fewest:
        try:
            spec.check(geometry)
        except IllegalSpecError as error:
            raise IllegalSpecError(f"{asked}: layer {facts.name}: {error}") from error
        reason = no_gain(geometry, spec, channel=wish.channel, norm=norm is not None)
    if reason is not None:
        return Keep(layer=facts.name, geometry=geometry, code=reason[0], reason=reason[1])
    return Convert(layer=facts.name, geometry=geometry, spec=spec, norm=norm)


def _check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    for glob in unmatched(globs, names):
        near = get_close_matches(glob, names, n=1, cutoff=0.0)
        raise SelectionError(
            f"no Conv2d layer matches {glob!r}; the {len(names)} layers are named like {near[0]!r} "
            "(--dry-run -v lists them all)"
        )


def _check_strides(
    wish: Wish,
    wishes: Mapping[Override, Wish | None],
    geometries: Sequence[ConvGeometry],
    chosen: Sequence[Override | None],
) -> None:
    """Every stride that is a count fits one of all layers at least, or one of those that its override decides."""
    _check_stride(wish, "", geometries)
    for override, own in wishes.items():
        mine = [g for g, decided in zip(geometries, chosen, strict=True) if decided == override]
        if own is not None and mine:
            _check_stride(own, f"--layer {override}: ", mine)


def _check_stride(wish: Wish, asked: str, geometries: Sequence[ConvGeometry]) -> None:
    if not wish.channel or isinstance(wish.channel_stride, float):
        return  # a share fits every layer that has channels to share
    if any(wish.stride_of(geometry.group_inputs) for geometry in geometries):
        return
    most = max(geometry.group_inputs for geometry in geometries)
    raise IllegalSpecError(
        f"{asked}--channel-stride {wish.channel_stride} with --windows {wish.windows} fits no layer: the widest filter "
        f"has {most} channels, which allows a stride of at most {most // wish.windows}"
    )


def no_gain(geometry: ConvGeometry, spec: VersatileSpec, *, channel: bool, norm: bool) -> Reason | None:
    """Why a layer would not shrink (or cannot be fitted in memory), None where it does.

    `channel`: windows were asked for; `norm`: a BatchNorm follows and takes the scales and biases.
    """
    kh, kw = geometry.kernel_size
    unfolded = geometry.group_inputs * kh * kw
    if unfolded > MOST_INPUTS:
        return "too-large", f"a filter of {unfolded:,} weights; up to {MOST_INPUTS:,} can be fitted"
    # Without a norm the layer has scales and a bias of its own; every output stores its row.
    own = geometry.out_channels * (1 if norm else 3 - geometry.bias)
    if spec.weight_numbers(geometry) + own < geometry.weight_numbers:
        return None
    if geometry.group_outputs == 1 and geometry.groups > 1:
        return "depthwise", f"each of the {geometry.groups} groups has one output, so no two share a filter"
    if spec.group_primaries is not None and spec.group_primaries > spec.fewest_primaries(geometry):
        return "would-not-shrink", f"{spec.group_primaries} primary filters a group leave nothing to save"
    if spec.outputs_per_primary > 1:
        return "would-not-shrink", f"{geometry.group_outputs} outputs a group leave nothing to save"
    if channel or geometry.group_inputs < 2:
        return "nothing-to-share", f"a {kh}x{kw} kernel of {geometry.group_inputs} channels allows no crop or window"
    return "nothing-to-share", f"a {kh}x{kw} kernel cannot be cropped; --channel would include it"
