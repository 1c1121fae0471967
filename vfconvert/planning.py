"""The plan: for every Conv2d of a network, convert it to a spec or keep it for a reason. Plain, frozen data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import nn

from vfconvert.analysis.profile import Profile, module_names
from vfconvert.eligibility import facts_of, reason_to_keep, unmatched
from vfconvert.errors import IllegalSpecError, NoConvolutionError, NothingEligibleError, SelectionError
from vfconvert.ops.crops import CROP_FAMILIES, crops_and_levels
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

MOST_INPUTS = 16_384  # unfolded inputs of a filter: their covariance takes 2 GiB


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the user wants of every layer alike; `channel_stride` is a count or, below 1, a share of the channels.

    Raises `IllegalSpecError` on numbers that no layer can have.
    """

    spatial: bool = True
    channel: bool = False
    windows: int = 2
    channel_stride: int | float = 0.25
    crops: str = "squares"

    def __post_init__(self) -> None:
        if self.crops not in CROP_FAMILIES:
            raise IllegalSpecError(f"--crops: got {self.crops!r}, expected one of {', '.join(CROP_FAMILIES)}")
        if not self.channel:
            return
        if self.windows < 2:
            raise IllegalSpecError(f"--windows: got {self.windows}, expected at least 2")
        if isinstance(self.channel_stride, float) and not 0 < self.channel_stride <= 1 / self.windows:
            raise IllegalSpecError(
                f"--channel-stride: got {self.channel_stride:g} of the channels, expected above 0 and at most "
                f"1/{self.windows} with {self.windows} windows; beyond that, channels go unread"
            )
        if isinstance(self.channel_stride, int) and self.channel_stride < 1:
            raise IllegalSpecError(f"--channel-stride: got {self.channel_stride} channels, expected at least 1")

    def stride_of(self, channels: int) -> int:
        """The channel stride for a filter of so many channels; 0 where it can have no windows."""
        largest = channels // self.windows
        if isinstance(self.channel_stride, int):
            return self.channel_stride if self.channel_stride <= largest else 0
        return min(max(1, int(self.channel_stride * channels + 1e-9)), largest)

    def spec_of(self, geometry: ConvGeometry) -> VersatileSpec:
        """What this wish makes of one layer."""
        kh, kw = geometry.kernel_size
        crops: tuple[Crop, ...] = (Crop(0, kh, 0, kw),)
        levels: tuple[tuple[int, ...], ...] = ((0,),)
        if self.spatial:
            crops, levels = crops_and_levels(geometry.kernel_size, self.crops)
        stride = self.stride_of(geometry.group_inputs) if self.channel else 0
        return VersatileSpec(crops=crops, levels=levels, windows=self.windows if stride else 1, channel_stride=stride)


def make_plan(
    model: nn.Module,
    profile: Profile,
    norms: Mapping[str, str],
    wish: Wish,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_first: bool = False,
) -> Plan:
    """Decide about every Conv2d of a network. `norms`: layer -> the BatchNorm that alone reads its output.

    Raises `NoConvolutionError`, `NothingEligibleError` (with the reasons), `IllegalSpecError` where a channel stride
    fits no layer at all.
    """
    decisions: list[Decision] = []
    every = facts_of(model, profile, module_names(model), include=include, exclude=exclude, include_first=include_first)
    if not every:
        raise NoConvolutionError(
            f"{type(model).__name__} has no Conv2d layer, so there is nothing to convert; give a convolutional network"
        )
    _check_globs((*include, *exclude), [facts.name for facts in every])
    _check_stride(wish, [ConvGeometry.of(facts.module) for facts in every])
    for facts in every:
        geometry = ConvGeometry.of(facts.module)
        spec = wish.spec_of(geometry)
        reason = reason_to_keep(facts) or _no_gain(geometry, spec, wish, facts.name in norms)
        if reason is not None:
            decisions.append(Keep(layer=facts.name, geometry=geometry, code=reason[0], reason=reason[1]))
        else:
            decisions.append(Convert(layer=facts.name, geometry=geometry, spec=spec, norm=norms.get(facts.name)))
    plan = Plan(decisions=tuple(decisions))
    if not plan.converted:
        counts = Counter(keep.code for keep in plan.kept)
        first = plan.kept[0]
        raise NothingEligibleError(
            f"none of the {len(plan.kept)} Conv2d layers can be converted "
            f"({', '.join(f'{code}: {count}' for code, count in counts.most_common())}); "
            f"for instance {first.layer}: {first.reason}"
        )
    return plan


def _check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
    for glob in unmatched(globs, names):
        near = get_close_matches(glob, names, n=1, cutoff=0.0)
        raise SelectionError(
            f"no Conv2d layer matches {glob!r}; the {len(names)} layers are named like {near[0]!r} "
            "(--dry-run -v lists them all)"
        )


def _check_stride(wish: Wish, geometries: Sequence[ConvGeometry]) -> None:
    if not wish.channel or isinstance(wish.channel_stride, float):
        return  # a share fits every layer that has channels to share
    if any(wish.stride_of(geometry.group_inputs) for geometry in geometries):
        return
    most = max(geometry.group_inputs for geometry in geometries)
    raise IllegalSpecError(
        f"--channel-stride {wish.channel_stride} with --windows {wish.windows} fits no layer: the widest filter has "
        f"{most} channels, which allows a stride of at most {most // wish.windows}"
    )


def _no_gain(geometry: ConvGeometry, spec: VersatileSpec, wish: Wish, norm: bool) -> tuple[str, str] | None:
    """Why a layer would not shrink (or cannot be fitted in memory), None where it does."""
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
    if spec.outputs_per_primary > 1:
        return "would-not-shrink", f"{geometry.group_outputs} outputs a group leave nothing to save"
    if wish.channel:
        return "nothing-to-share", f"a {kh}x{kw} kernel of {geometry.group_inputs} channels allows no crop or window"
    return "nothing-to-share", f"a {kh}x{kw} kernel cannot be cropped; --channel would include it"
