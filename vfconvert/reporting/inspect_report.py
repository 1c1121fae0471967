"""The one value that the renderers of `vfconvert inspect` read: what each layer could become, and what is best overall.

Integers and SI units; MACs are multiply-adds of one image as executed, FLOPs = 2 x MACs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vfconvert.budget.frontier import Frontier, Point
from vfconvert.budget.table import LayerOptions, Option
from vfconvert.reporting.report import FileReport, ImagesReport, LayerRow

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectReport:
    """All of an inspection. `parameters`, `macs` and `latency` (seconds, if measured) are of the original network.

    `measure` says what damage is: "nats" of the distribution over classes, or share of the output's "variance".
    `layers` have a choice, the first option of each keeps it; `kept` have none (rows of `layer_rows`).
    `frontiers`: one for each cost. `uniform`: what converting every layer alike would give, by name, to compare with.
    `seconds`: by stage; `runtime` is what latencies were measured in.
    """

    command: str
    versions: Mapping[str, str]
    seed: int
    device: str
    input: FileReport
    input_shape: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...] = ()  # of several inputs; then the one above has the channels of all
    measure: str
    parameters: int
    macs: int
    latency: float | None
    layers: tuple[LayerOptions, ...]
    kept: tuple[LayerRow, ...]
    linears: tuple[LayerRow, ...] = ()  # Linear layers on flattened maps, kept
    frontiers: tuple[Frontier, ...]
    uniform: tuple[tuple[str, Point], ...] = ()
    images: ImagesReport | None = None
    runtime: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None
    schema_version: int = SCHEMA_VERSION


def smallest(layer: LayerOptions, kind: str) -> Option | None:
    """The option of a kind that has the fewest parameters, of equals the least damaging; None where there is none."""
    options = [option for option in layer.options if option.kind == kind]
    return min(options, key=lambda option: (option.parameters, option.damage), default=None)


def saved(layer: LayerOptions, option: Option) -> tuple[int, int]:
    """Parameters and MACs by which an option is smaller than the layer as it is; negative where it is larger."""
    kept = layer.options[0]
    return kept.parameters - option.parameters, kept.macs - option.macs
