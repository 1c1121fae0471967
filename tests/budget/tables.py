"""Tables of options made by hand or at random, small enough to try every choice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from vfconvert.budget.table import KEEP, LayerOptions, Option, OptionTable
from vfconvert.planning import Keep
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

GEOMETRY = ConvGeometry(in_channels=16, out_channels=16, kernel_size=(3, 3), bias=False)
SPATIAL = VersatileSpec(crops=(Crop(0, 3, 0, 3), Crop(1, 2, 1, 2)), levels=((0,), (1,)))
FIXED = 1000  # numbers, and multiply-adds, of what is no choice


def option(kind: str, parameters: int, macs: int, damage: float, seconds: float | None = None) -> Option:
    spec = None if kind == KEEP else SPATIAL
    return Option(
        kind=kind, spec=spec, parameters=parameters, macs=macs, damage=damage, unexplained=damage / 2, seconds=seconds
    )


def table_of(*layers: tuple[Option, ...], kept: tuple[Keep, ...] = (), seconds: float | None = None) -> OptionTable:
    """A table of layers "a", "b", …, each with its options, the first of which keeps it."""
    names = [chr(ord("a") + index) for index in range(len(layers))]
    return OptionTable(
        layers=tuple(
            LayerOptions(layer=name, geometry=GEOMETRY, norm=None, options=options)
            for name, options in zip(names, layers, strict=True)
        ),
        kept=kept,
        order=(*names, *(keep.layer for keep in kept)),
        parameters=FIXED + sum(options[0].parameters for options in layers),
        statistics=20,
        macs=FIXED + sum(options[0].macs for options in layers),
        measure="nats",
        seconds=seconds,
    )


def keep(layer: str, outputs: int = 16, code: str = "depthwise") -> Keep:
    geometry = ConvGeometry(in_channels=16, out_channels=outputs, kernel_size=(3, 3), bias=False)
    return Keep(layer=layer, geometry=geometry, code=code, reason="a reason")


def random_table(seed: int, layers: int = 4, options: int = 4) -> OptionTable:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(layers):
        whole = int(random.integers(500, 5000))
        rest = [
            option("spatial", int(whole * random.random()), int(9 * whole * random.random()), float(random.random()))
            for _ in range(options)
        ]
        found.append((option(KEEP, whole, 9 * whole, 0.0), *rest))
    return table_of(*found)


def choices(table: OptionTable) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(len(layer.options)) for layer in table.layers))


def costs(table: OptionTable, chosen: tuple[int, ...]) -> tuple[dict[str, float], float]:
    """What a choice costs, and its damage, added up option by option."""
    options = [layer.options[index] for layer, index in zip(table.layers, chosen, strict=True)]
    saved = [(layer.options[0], one) for layer, one in zip(table.layers, options, strict=True)]
    return {
        "params": table.parameters - sum(old.parameters - new.parameters for old, new in saved),
        "macs": table.macs - sum(old.macs - new.macs for old, new in saved),
    }, sum(one.damage for one in options)


def best_damage(table: OptionTable, limits: Mapping[str, float]) -> float | None:
    """The least damage within limits, of every choice there is; None where none keeps them."""
    found = [costs(table, chosen) for chosen in choices(table)]
    within = [damage for cost, damage in found if all(cost[name] <= limit for name, limit in limits.items())]
    return min(within, default=None)
