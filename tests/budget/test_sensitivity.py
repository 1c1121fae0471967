"""Sensitivities against the truth: how far the output moves when noise is added to one layer's output."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.budget.nets import change_of_output, classifier, dense, divergence, pictures, share_of_variance
from vfconvert.budget.sensitivity import Sensitivity, sensitivity_of
from vfconvert.errors import BudgetError, FitError

LAYERS = ("0", "3")
DRAWS = 30


NOISE = 0.01 * torch.linspace(0.2, 1.8, 8, dtype=torch.float64)


def off_by(found: Sensitivity, model: nn.Module, layer: str, noise: Tensor = NOISE, added: float = 1.0) -> float:
    """By which share the damage that is predicted for noise in all channels differs from that of `added` times it."""
    distance: Callable[[Tensor, Tensor], float] = divergence if found.measure == "nats" else share_of_variance
    true = change_of_output(model, layer, added * noise, pictures(), distance)
    return float(0.5 * (found.by_layer[layer] * noise.square()).sum()) / true - 1


@pytest.mark.parametrize("inplace", [False, True], ids=["", "in place"])
@pytest.mark.parametrize("layer", LAYERS)
def test_divergence_is_what_the_sensitivity_says(layer: str, inplace: bool) -> None:
    model = classifier(inplace=inplace, norms=not inplace)  # with no norm between, ReLU writes into the layer's output
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, draws=DRAWS)
    assert found.measure == "nats"
    assert abs(off_by(found, model, layer)) < 0.15


@pytest.mark.parametrize("layer", LAYERS)
def test_meta_twice_the_noise_is_seen(layer: str) -> None:
    model = classifier()
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, draws=DRAWS)
    assert off_by(found, model, layer, added=2) == pytest.approx(1 / 4 - 1, abs=0.05)


@pytest.mark.parametrize("layer", LAYERS)
def test_noise_in_one_channel_counts_as_that_channels(layer: str) -> None:
    model = classifier()
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, draws=DRAWS)
    strongest = int(found.by_layer[layer].argmax())
    noise = torch.zeros_like(NOISE).index_fill(0, torch.tensor([strongest]), 0.01)
    assert abs(off_by(found, model, layer, noise)) < 0.15
    turned = Sensitivity(by_layer={layer: found.by_layer[layer].sort().values}, measure="nats")
    turned.by_layer[layer][strongest] = turned.by_layer[layer][0]
    assert off_by(turned, model, layer, noise) < -0.15


@pytest.mark.parametrize("inplace", [False, True], ids=["", "in place"])
@pytest.mark.parametrize("layer", LAYERS)
def test_map_is_counted_in_its_variance(layer: str, inplace: bool) -> None:
    model = dense(inplace=inplace)
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, draws=DRAWS)
    assert found.measure == "variance"
    assert abs(off_by(found, model, layer)) < 0.15
    assert abs(off_by(found, model, layer, added=2)) > 0.5


def test_probabilities_are_no_logits() -> None:
    model = nn.Sequential(*classifier(), nn.Softmax(1))
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, draws=DRAWS)
    assert found.measure == "variance"
    assert abs(off_by(found, model, "3")) < 0.15


class Several(nn.Module):
    """A network that returns what `make` makes of the input and of the inner network's output."""

    def __init__(self, inner: nn.Module, make: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.inner, self.make = inner, make

    def forward(self, x: Tensor) -> object:
        return self.make(x, self.inner(x))


def sensitivity_of_several(make: Callable[[Tensor, Tensor], object]) -> Sensitivity:
    names = [f"inner.{name}" for name in LAYERS]
    return sensitivity_of(Several(classifier(), make), names, pictures(), seed=0, draws=DRAWS)


def test_every_output_counts() -> None:
    once = sensitivity_of(classifier(), LAYERS, pictures(), seed=0, draws=DRAWS).by_layer["3"]
    twice = sensitivity_of_several(lambda x, y: {"out": y, "aux": [y]})
    assert twice.measure == "nats"
    assert torch.allclose(twice.by_layer["inner.3"], 2 * once, rtol=0.15)
    assert not torch.allclose(twice.by_layer["inner.3"], once, rtol=0.15)


def test_output_that_is_no_number_or_does_not_react_adds_nothing() -> None:
    once = sensitivity_of(classifier(), LAYERS, pictures(), seed=0, draws=DRAWS).by_layer["3"]
    found = sensitivity_of_several(lambda x, y: (y, y.argmax(1)))
    assert torch.equal(found.by_layer["inner.3"], once)
    assert found.measure == "nats"
    mixed = sensitivity_of_several(lambda x, y: (x.sum((1, 2, 3)), y))
    assert mixed.measure == "variance"
    assert torch.allclose(mixed.by_layer["inner.3"], once, rtol=0.15)


@pytest.mark.parametrize(
    "make",
    [lambda x, y: y.detach(), lambda x, y: y.argmax(1), lambda x, y: x.mean(1)],
    ids=["detached", "class", "input"],
)
def test_outputs_that_depend_on_no_layer_by_gradients_are_refused(make: Callable[..., object]) -> None:
    with pytest.raises(BudgetError, match="no output reacts to any layer by a gradient"):
        sensitivity_of_several(make)


def test_gradients_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FitError, match=r"inner\.\d: the network's gradients are not finite there"):
        sensitivity_of_several(lambda x, y: (y * 0).sqrt())


@pytest.mark.parametrize("inplace", [False, True], ids=["", "in place"])
def test_network_is_left_as_it_was(inplace: bool) -> None:
    model, images = classifier(inplace=inplace), pictures()
    model[3].weight.requires_grad_(True)
    before, shown, wanted = copy.deepcopy(model.state_dict()), images.clone(), model(images).detach()
    sensitivity_of(model, LAYERS, images, seed=0)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(images, shown)
    assert images.grad is None
    assert torch.equal(model(images).detach(), wanted)
    assert not any(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["3.weight"]
    assert not any(module._forward_hooks for module in model.modules())


def test_gradients_of_the_network_are_left_as_they_were() -> None:
    model = classifier()
    kept = torch.randn_like(model[3].weight)
    model[3].weight.requires_grad_(True).grad = kept.clone()
    sensitivity_of(model, LAYERS, pictures(), seed=0)
    assert torch.equal(model[3].weight.grad, kept)
    assert model[0].weight.grad is None


def test_hooks_go_where_the_pass_fails() -> None:
    model = classifier()
    model[7].register_forward_pre_hook(_refuse)
    with pytest.raises(RuntimeError, match="not with gradients"):
        sensitivity_of(model, LAYERS, pictures(), seed=0)
    assert not any(module._forward_hooks for module in model.modules())


def _refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("not with gradients")


@pytest.mark.parametrize("batch", [1, 5, 24])
def test_images_count_alike_in_every_batch(batch: int) -> None:
    model = dense()
    found = sensitivity_of(model, LAYERS, pictures(), seed=0, batch=batch, draws=DRAWS)
    assert abs(off_by(found, model, "3")) < 0.15


def test_same_seed_gives_the_same_and_another_does_not() -> None:
    model = classifier()
    first, again, other = (sensitivity_of(model, LAYERS, pictures(), seed=s).by_layer["3"] for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float64


def test_random_numbers_of_others_are_not_drawn() -> None:
    model, state = classifier(), torch.get_rng_state()
    sensitivity_of(model, LAYERS, pictures(), seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_counts_every_pass() -> None:
    said: list[tuple[str, int, int]] = []
    sensitivity_of(classifier(), LAYERS, pictures(), seed=0, batch=10, draws=2, progress=lambda *a: said.append(a))
    assert said == [("sensitivity", step, 6) for step in range(1, 7)]
