"""Damage and cost of layers that a pass calls several times: sums over the calls, parameters once."""

import pytest
import torch

from tests.budget.nets import divergence, share_of_variance
from tests.fitting.nets import images
from tests.repeated_nets import Decides, Pyramid, Recurrent, pyramid, recurrent
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.graph import trace
from vfconvert.analysis.profile import Profile, profile
from vfconvert.analysis.totals import converted_numbers, ordinary_numbers, totals_of
from vfconvert.budget.building import option_table
from vfconvert.budget.candidates import KINDS
from vfconvert.budget.damage import Harm, harms_of
from vfconvert.budget.sensitivity import sensitivity_of
from vfconvert.planning import Plan, Wish, make_plan
from vfconvert.specs import ConvGeometry

DATA = images(48)


def model_of(build):
    torch.manual_seed(2)
    return build().eval().requires_grad_(False)


def harms(model, names: list[str], prefix: str = "") -> dict[str, tuple[Harm, ...]]:
    geometries = {prefix + name: ConvGeometry.of(model.get_submodule(prefix + name)) for name in names}
    sensitivity = sensitivity_of(model, list(geometries), DATA, seed=0)
    network = trace(model, DATA[:2])
    assert (network is None) == bool(prefix)
    found = harms_of(model, network, geometries, sensitivity, DATA, seed=0)
    return {name.removeprefix(prefix): options for name, options in found.items()}


def table_of(model, found) -> tuple[Profile, Plan, object]:
    layers = profile(model, DATA[:1])
    plan = make_plan(model, layers, {}, Wish(), include=list(found))
    before = totals_of(model, layers, count_macs(model, DATA[:1]))
    return layers, plan, option_table(plan, layers, before, found, "variance", KINDS)


@pytest.mark.parametrize(
    ("build", "names"), [(Pyramid, ["tower", "scores"]), (Recurrent, ["first", "second"])], ids=["pyramid", "recurrent"]
)
def test_damage_is_the_same_by_both_ways_through_a_network(build, names):
    model = model_of(build)
    traced, untraced = harms(model, names), harms(Decides(model).eval(), names, "network.")
    assert set(traced) == set(names)
    for name in names:
        for a, b in zip(traced[name], untraced[name], strict=True):
            assert (a.kind, a.spec) == (b.kind, b.spec)
            assert a.damage == pytest.approx(b.damage, rel=1e-3)
            assert a.unexplained == pytest.approx(b.unexplained, rel=1e-3)
            assert a.damage > 0


@torch.no_grad()
def change(model, layer: str, deviations, data, distance, calls: set[int]) -> float:
    """How far the output moves where noise of these deviations is added to the layer's output in these calls."""
    generator, seen = torch.Generator().manual_seed(7), []

    def disturb(module, inputs, output):
        seen.append(output)
        noise = torch.randn(output.shape, dtype=output.dtype, generator=generator)
        return output + deviations[:, None, None] * noise if (len(seen) - 1) % 3 in calls else output

    clean = model(data)
    hook = model.get_submodule(layer).register_forward_hook(disturb)
    try:
        return sum(distance(clean, model(data)) for _ in range(30)) / 30
    finally:
        hook.remove()


@pytest.mark.parametrize(("build", "layer"), [(pyramid, "tower"), (recurrent, "first")], ids=["pyramid", "recurrent"])
def test_sensitivity_is_that_of_all_calls(build, layer):
    model, data = model_of(build).double(), DATA[:24].double()
    deviations = 0.01 * torch.linspace(0.2, 1.8, 16, dtype=torch.float64)
    found = sensitivity_of(model, [layer], data, seed=0, draws=30)
    distance = divergence if found.measure == "nats" else share_of_variance
    predicted = 0.5 * float((found.by_layer[layer] * deviations.square()).sum())
    assert predicted == pytest.approx(change(model, layer, deviations, data, distance, {0, 1, 2}), rel=0.15)
    for call in range(3):
        assert change(model, layer, deviations, data, distance, {call}) < 0.8 * predicted


def test_products_are_those_of_all_calls_and_parameters_stand_once():
    model = model_of(Pyramid)
    found = harms(model, ["tower"])
    layers, plan, table = table_of(model, found)
    positions = 12 * 12 + 6 * 6 + 3 * 3
    geometry = layers.layer("tower").geometry
    keep, *options = table.layers[0].options
    assert (keep.parameters, keep.macs) == (ordinary_numbers(geometry), positions * geometry.weight_numbers)
    smaller = [harm for harm in found["tower"] if harm.spec in [option.spec for option in options]]
    assert [option.macs for option in options] == [positions * harm.products for harm in smaller]
    new = plan.converted[0].new_geometry
    assert [option.parameters for option in options] == [converted_numbers(h.spec, new, None) for h in smaller]
