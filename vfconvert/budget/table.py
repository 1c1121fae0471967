"""All that a plan is chosen from: for each layer its options, each with what it costs and what it harms."""

from __future__ import annotations

from dataclasses import dataclass

from vfconvert.planning import Convert, Decision, Keep, Plan
from vfconvert.specs import ConvGeometry, VersatileSpec

KEEP = "keep"
CHOSEN_TO_STAY = "budget"  # the code of layers that a plan leaves alone though they could be converted


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One thing that a layer can become. `kind`: "keep", "spatial", "lines", "channel", "group" or "both".

    `parameters` are the numbers that the layer then has (bank, scales, bias), `macs` the multiply-adds of one image as
    executed with shared sums, `seconds` its measured time, None where nothing was measured. `unexplained` is the
    share of the layer's output variance, weighted by how the network's output reacts to it, that the closed-form fit
    leaves; `damage` the same in absolute terms: by how much it changes the network's output (nats of its
    distribution over classes, or the share of the output's own variance).
    """

    kind: str
    spec: VersatileSpec | None
    parameters: int
    macs: int
    damage: float
    unexplained: float
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOptions:
    """The options of one layer, the first of which keeps it. `norm` is the BatchNorm that follows, if one does."""

    layer: str
    geometry: ConvGeometry
    norm: str | None
    options: tuple[Option, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionTable:
    """`layers` that have a choice, in the order of the network; `kept` that have none, with reasons.

    `parameters`, `statistics` (running means and variances), `macs` and `seconds` are those of the whole original
    network. `measure` says what damage is counted in: "nats" or "variance". `notes` are sentences for the user.
    """

    layers: tuple[LayerOptions, ...]
    kept: tuple[Keep, ...]
    order: tuple[str, ...]  # of all layers, as a plan lists them
    parameters: int
    statistics: int
    macs: int
    measure: str
    seconds: float | None = None
    traced: bool = True  # else every layer is computed as an ordinary convolution, and nothing is saved but numbers
    notes: tuple[str, ...] = ()

    def plan(self, chosen: tuple[int, ...]) -> Plan:
        """The plan of one option for each of `layers`."""
        decisions: dict[str, Decision] = {keep.layer: keep for keep in self.kept}
        for layer, index in zip(self.layers, chosen, strict=True):
            option = layer.options[index]
            if option.spec is None:
                decisions[layer.layer] = Keep(
                    layer=layer.layer,
                    geometry=layer.geometry,
                    code=CHOSEN_TO_STAY,
                    reason="the budget is met without it; a tighter --target would include it",
                )
            else:
                decisions[layer.layer] = Convert(
                    layer=layer.layer, geometry=layer.geometry, spec=option.spec, norm=layer.norm
                )
        return Plan(decisions=tuple(decisions[name] for name in self.order))
