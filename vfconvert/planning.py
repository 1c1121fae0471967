"""The plan: for every Conv2d of a network, convert it to a spec or keep it for a reason. Plain, frozen data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vfconvert.specs import ConvGeometry, VersatileSpec


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
