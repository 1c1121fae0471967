"""Damage of options: the same by both ways through a network, ordered, and what converting by them does."""

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from tests.budget.nets import classifier, divergence, pictures
from vfconvert.analysis.computing import with_channels_last
from vfconvert.analysis.graph import trace
from vfconvert.budget.candidates import families_of
from vfconvert.budget.damage import Harm, harms_of
from vfconvert.budget.sensitivity import Sensitivity, sensitivity_of
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.sweep import compress
from vfconvert.planning import Convert, Plan
from vfconvert.specs import ConvGeometry

Harms = dict[str, tuple[Harm, ...]]


def geometries(model: nn.Module) -> dict[str, ConvGeometry]:
    return {name: ConvGeometry.of(m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def measured(
    model: nn.Module, *, traced: bool = True, sensitivity: Sensitivity | None = None, images: Tensor | None = None
) -> Harms:
    wanted, images = geometries(model), pictures(96).float() if images is None else images
    if sensitivity is None:
        sensitivity = sensitivity_of(model, list(wanted), images, seed=0)
    network = trace(model, images[:2]) if traced else None
    assert traced == (network is not None)
    return harms_of(model, network, wanted, sensitivity, images, seed=0)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return classifier(inplace=True).float()


@pytest.fixture(scope="module")
def harms(model: nn.Sequential) -> Harms:
    return measured(model)


def close(first: Harms, second: Harms) -> bool:
    return all(
        (a.kind, a.spec, a.products) == (b.kind, b.spec, b.products)
        and a.damage == pytest.approx(b.damage, rel=1e-4)
        and a.unexplained == pytest.approx(b.unexplained, rel=1e-4)
        for name in first
        for a, b in zip(first[name], second[name], strict=True)
    )


def test_network_that_cannot_be_traced_is_measured_alike(model: nn.Sequential, harms: Harms) -> None:
    untraced = measured(model, traced=False)
    assert list(harms) == ["0", "3"]
    assert sorted(untraced) == sorted(harms)
    assert close(harms, untraced)


class Block(nn.Module):
    """A layer, and a segment of five more, the last of them called twice; what they give is written over."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if index == 0 else 8, 8, 3, padding=1) for index in range(6))

    def forward(self, x: Tensor) -> Tensor:
        first, *between, last = self.layers
        x = first(x)
        y = x
        for layer in between:
            y = F.relu_(layer(y))
        y = last(last(y)) + x
        return F.relu_(y).mean((2, 3))


def passes(monkeypatch: pytest.MonkeyPatch, model: nn.Module, name: str, value: int) -> tuple[Harms, int]:
    """The harms with another bound on what is looked at together, and how often the second layer was run."""
    runs: list[int] = []
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(f"vfconvert.budget.damage.{name}", value)
        handle = model.layers[1].register_forward_hook(lambda *_: runs.append(1))
        network, images = trace(model, pictures(2).float()), pictures(96).float()
        assert network is not None
        even = Sensitivity(by_layer={f"layers.{index}": torch.ones(8).double() for index in range(6)}, measure="nats")
        runs.clear()
        found = harms_of(model, network, geometries(model), even, images, seed=0, batch=96)
        handle.remove()
    return found, len(runs)


def test_one_pass_for_several_layers_finds_what_one_for_each_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Block().eval()
    together, few = passes(monkeypatch, model, "_TOGETHER", 6)
    alone, many = passes(monkeypatch, model, "_TOGETHER", 1)
    tight, _ = passes(monkeypatch, model, "_MOST_NUMBERS", 1)
    assert together == alone == tight
    assert list(together) == [f"layers.{index}" for index in range(6)]
    assert (few, many) == (3, 6)  # with that of the layer called twice, whose batches are smaller


def test_channels_last_change_no_damage(model: nn.Sequential, harms: Harms) -> None:
    turned = with_channels_last(model, pictures(2).float())
    assert turned is not model
    assert close(harms, measured(turned))


def test_meta_other_images_are_seen(model: nn.Sequential, harms: Harms) -> None:
    assert not close(harms, measured(model, images=pictures(96, seed=3).float()))


def test_every_candidate_has_its_harm_in_order(harms: Harms, model: nn.Sequential) -> None:
    for name, geometry in geometries(model).items():
        wanted = [(f.kind, count) for f in families_of(geometry) for count in f.primaries]
        assert [(h.kind, h.spec.primaries_per_group(geometry)) for h in harms[name]] == wanted
        for harm in harms[name]:
            harm.spec.check(geometry)
            fewest = harm.spec.primaries_per_group(geometry) == harm.spec.fewest_primaries(geometry)
            assert fewest == (harm.spec.group_primaries is None)
            assert 0 < harm.products <= geometry.weight_numbers
            assert 0 < harm.unexplained < 1
            assert harm.damage > 0


def test_more_primaries_harm_less(harms: Harms, model: nn.Sequential) -> None:
    chain = [h for h in harms["3"] if h.kind == "spatial"]
    assert len(chain) > 1
    assert [h.damage for h in chain] == sorted((h.damage for h in chain), reverse=True)
    by_kind = {h.kind: h.damage for h in reversed(harms["3"])}  # the fewest primaries of each kind come first
    assert by_kind["lines"] <= by_kind["spatial"] < by_kind["both"]


def test_damage_is_half_of_what_the_sensitivity_makes_of_the_rest(harms: Harms, model: nn.Sequential) -> None:
    once = sensitivity_of(model, ["0", "3"], pictures(96).float(), seed=0).by_layer
    twice = Sensitivity(by_layer={name: 2 * values for name, values in once.items()}, measure="nats")
    doubled = measured(model, sensitivity=twice)
    for name in harms:
        for one, other in zip(harms[name], doubled[name], strict=True):
            assert other.damage == pytest.approx(2 * one.damage, rel=1e-6)
            assert other.unexplained == pytest.approx(one.unexplained, rel=1e-6)
        with torch.no_grad():
            values = model[: int(name) + 1](pictures(96).float())
        energy = float((once[name] * values.transpose(0, 1).flatten(1).var(1, correction=0)).sum())
        for harm in harms[name]:
            assert harm.damage == pytest.approx(0.5 * harm.unexplained * energy, rel=1e-3)


@pytest.mark.parametrize("given", [True, False], ids=["zero", "missing"])
def test_layer_without_sensitivity_has_no_damage(model: nn.Sequential, harms: Harms, given: bool) -> None:
    dead = {"0": torch.ones(8, dtype=torch.float64)}
    if given:
        dead["3"] = torch.zeros(8, dtype=torch.float64)
    found = measured(model, sensitivity=Sensitivity(by_layer=dead, measure="nats"))
    assert {harm.damage for harm in found["3"]} == {0.0}
    assert {harm.unexplained for harm in found["3"]} == {0.0}
    assert all(harm.damage > 0 for harm in found["0"])


def test_groups_are_added_up() -> None:
    torch.manual_seed(4)
    grouped = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
    with torch.no_grad():
        grouped[2].weight *= 8
    images = torch.randn(80, 4, 6, 6)
    both = Sensitivity(by_layer={"0": torch.ones(8, dtype=torch.float64)}, measure="nats")
    halves = [(torch.arange(8) // 4 == half).double() for half in (0, 1)]
    total = measured(grouped, sensitivity=both, images=images)["0"]
    parts = [
        measured(grouped, sensitivity=Sensitivity(by_layer={"0": half}, measure="nats"), images=images)["0"]
        for half in halves
    ]
    for whole, first, second in zip(total, *parts, strict=True):
        assert whole.damage == pytest.approx(first.damage + second.damage, rel=1e-5)
        assert first.damage > 0 < second.damage


def test_network_and_random_numbers_are_left_as_they_were() -> None:
    model, images = classifier(inplace=True).float(), pictures(32).float()
    before, shown, state = copy.deepcopy(model.state_dict()), images.clone(), torch.get_rng_state()
    first, again = measured(model, images=images), measured(model, images=images)
    assert first == again
    assert torch.equal(images, shown)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training or module._forward_hooks for module in model.modules())


def true_damage(model: nn.Module, harm: Harm, images: Tensor) -> float:
    """What converting layer "3" alone by this option, in closed form, does to the output."""
    convert = Convert(layer="3", geometry=geometries(model)["3"], spec=harm.spec, norm="4")
    options = FitOptions(block_steps=0, output_steps=0, refit_kept=False)
    student = compress(model, trace(model, images[:2]), Plan(decisions=(convert,)), images, options).model
    with torch.no_grad():
        return divergence(model(images).double(), student(images).double())


@pytest.fixture(scope="module")
def truth(model: nn.Sequential, harms: Harms) -> list[float]:
    return [true_damage(model, harm, pictures(96).float()) for harm in harms["3"]]


def orders(predicted: list[float], true: list[float]) -> bool:
    within = all(0.5 < t / p < 4 for t, p in zip(true, predicted, strict=True))  # these are large changes
    return within and float(spearmanr(true, predicted).statistic) > 0.85


def test_options_harm_about_as_their_damage_says(harms: Harms, truth: list[float]) -> None:
    assert orders([harm.damage for harm in harms["3"]], truth)


def test_meta_the_damage_of_other_options_is_seen(harms: Harms, truth: list[float]) -> None:
    predicted = [harm.damage for harm in harms["3"]]
    assert not orders(predicted[1:] + predicted[:1], truth)
    assert not orders([2 * damage for damage in sorted(predicted)], sorted(truth))


def wide() -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 64, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 3)).eval().requires_grad_(False)


def off_by(monkeypatch: pytest.MonkeyPatch, outputs: int) -> float:
    """How far the residuals of the wide layer are, in the mean, where only so many outputs are estimated."""
    model, found = wide(), []
    for most in (256, outputs):
        monkeypatch.setattr("vfconvert.budget.damage._MOST_OUTPUTS", most)
        found.append(measured(model)["3"])
    for whole, sampled in zip(*found, strict=True):
        assert (whole.kind, whole.spec) == (sampled.kind, sampled.spec)
        assert sampled.products == pytest.approx(whole.products, rel=0.1)
    off = [abs(b.unexplained / a.unexplained - 1) for a, b in zip(*found, strict=True) if a.unexplained > 0.01]
    return sum(off) / len(off)


def test_sample_of_the_outputs_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert off_by(monkeypatch, 48) < 0.1


def test_meta_too_small_a_sample_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="9216 == 6144"):  # products of the halved layer
        off_by(monkeypatch, 2)
