"""The table of options: only what saves something, with damage as the end leaves it, and times that add up."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from tests.budget.nets import classifier
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import Totals, totals_of
from vfconvert.budget.building import damage_of, option_table, timed
from vfconvert.budget.candidates import KINDS, families_of
from vfconvert.budget.damage import Harm
from vfconvert.budget.table import OptionTable
from vfconvert.errors import BudgetError
from vfconvert.planning import Convert, Keep, Plan
from vfconvert.specs import ConvGeometry

MODEL = classifier().float()
EXAMPLE = torch.zeros(1, 3, 6, 6)


def facts() -> tuple[Plan, Profile, Totals, dict[str, tuple[Harm, ...]]]:
    """Layer "3" with its norm and a damage of 1 for every option, layer "0" without."""
    layers = profile(MODEL, EXAMPLE)
    geometries = {name: ConvGeometry.of(m) for name, m in MODEL.named_modules() if isinstance(m, nn.Conv2d)}
    norms = {"0": None, "3": "4"}
    plan = Plan(
        decisions=tuple(
            Convert(layer=name, geometry=geometry, spec=families_of(geometry)[0].spec, norm=norms[name])
            for name, geometry in geometries.items()
        )
    )
    harms = {
        name: tuple(
            Harm(kind=family.kind, spec=family.spec, unexplained=0.5, damage=1.0, products=99)
            for family in families_of(geometry)
        )
        for name, geometry in geometries.items()
    }
    return plan, layers, totals_of(MODEL, layers, count_macs(MODEL, EXAMPLE)), harms


def built(kinds: tuple[str, ...] = KINDS) -> OptionTable:
    plan, layers, before, harms = facts()
    return option_table(plan, layers, before, harms, "nats", kinds)


def test_first_option_keeps_the_layer_and_all_others_save() -> None:
    for layer, positions in zip(built().layers, (36, 9), strict=True):
        keep, *others = layer.options
        conv = MODEL.get_submodule(layer.layer)
        assert (keep.kind, keep.spec, keep.damage) == ("keep", None, 0.0)
        assert keep.parameters == conv.weight.numel() + 8
        assert keep.macs == conv.weight.numel() * positions
        assert others
        assert all(option.parameters < keep.parameters for option in others)
        assert all(option.macs == 99 * positions for option in others)


def test_parameters_are_bank_bias_and_scales() -> None:
    alone, normed = (next(o for o in layer.options if o.kind == "spatial") for layer in built().layers)
    assert alone.parameters == 4 * 3 * 9 + 8 + 8  # a bias and a scale for each output
    assert normed.parameters == 4 * 8 * 9  # the norm has both


def test_totals_are_those_of_the_network() -> None:
    table = built()
    assert table.parameters == sum(p.numel() for p in MODEL.parameters())
    assert table.statistics == 2 * (8 + 8)
    assert table.macs == 8 * 27 * 36 + 8 * 72 * 9 + 72 * 4
    assert (table.measure, table.seconds, table.order) == ("nats", None, ("0", "3"))


@pytest.mark.parametrize("kinds", [("spatial",), ("channel", "group")])
def test_only_kinds_that_are_allowed_are_offered(kinds: tuple[str, ...]) -> None:
    found = {option.kind for layer in built(kinds).layers for option in layer.options}
    assert found <= {"keep", *kinds}
    assert found > {"keep"}


def test_layer_without_an_option_is_kept_with_a_reason() -> None:
    table = built(("both",))  # three channels have no whole stride for two windows
    assert [layer.layer for layer in table.layers] == ["3"]
    (kept,) = table.kept
    assert isinstance(kept, Keep)
    assert (kept.layer, kept.code) == ("0", "would-not-shrink")
    assert [decision.layer for decision in table.plan((0,)).decisions] == ["0", "3"]


def test_damage_grows_beyond_what_is_unexplained() -> None:
    spec = families_of(ConvGeometry(in_channels=8, out_channels=8, kernel_size=(3, 3)))[0].spec

    def counted(unexplained: float) -> float:
        return damage_of(Harm(kind="spatial", spec=spec, unexplained=unexplained, damage=unexplained, products=1))

    shares = [0.0, 0.01, 0.2, 0.5, 0.9, 0.99, 1.0]
    found = [counted(share) for share in shares]
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(0.01, rel=0.02)  # little is counted as it is
    assert found[3] == pytest.approx(1.0)
    assert math.isfinite(found[-1])
    assert {option.damage for layer in built().layers for option in layer.options[1:]} == {2.0}


@dataclass
class Times:
    """Stands in for a table of measured costs: seconds by the kind of form."""

    by_form: dict[str, float]
    foreign: bool = False
    machine: str = "an ARM"
    threads: int = 2

    def knows(self, *arguments: Any) -> bool:
        return False

    def costs(self, *arguments: Any) -> dict[str, float]:
        return self.by_form


def timed_with(whole: float, **by_form: float) -> OptionTable:
    return timed(built(), MODEL, facts()[1], Times(by_form), whole)  # type: ignore[arg-type]


def test_options_take_the_time_of_their_fastest_form() -> None:
    table = timed_with(5.0, plain=2.0, segments=1.5, full=3.0)
    assert table.seconds == 5.0
    for layer in table.layers:
        assert layer.options[0].seconds == 2.0
        assert {option.seconds for option in layer.options[1:]} == {1.5}


def test_layers_that_alone_take_longer_than_the_whole_share_it_out() -> None:
    table = timed_with(1.0, plain=2.0, segments=1.5)
    assert sum(layer.options[0].seconds or 0 for layer in table.layers) == pytest.approx(1.0)
    assert [layer.options[1].seconds for layer in table.layers] == pytest.approx([0.375, 0.375])


def test_table_of_another_machine_must_have_every_layer() -> None:
    with pytest.raises(BudgetError, match=r"^0: not timed .* another machine \(an ARM\); .* --threads 2`$"):
        timed(built(), MODEL, facts()[1], Times({"plain": 1.0}, foreign=True), 1.0)  # type: ignore[arg-type]
