"""Networks that would be converted wrongly by a careless sweep: each must come out as it went in, or be refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from tests.fitting.nets import images, settled
from tests.fitting.test_sweep import FIT_ALONE, error, full_filters, planned
from vfconvert.analysis.graph import trace
from vfconvert.fitting.options import FitOptions
from vfconvert.fitting.reconstruct import output_loss
from vfconvert.fitting.sweep import compress
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Plan, Wish


class AddsInPlace(nn.Module):
    """Residual sums that overwrite the activation at a block's entry."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x.add_(self.a(x))
        x.add_(self.b(x))
        return x.mean((2, 3))


class ChangesItsInput(nn.Module):
    """Normalises the images that it is given in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.a(F.relu(self.stem(x))).mean((2, 3))


class UntraceableInPlace(nn.Module):
    """An activation in place behind the layer, and a branch on values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(self.act(self.stem(x))))
        return y.mean((2, 3)) if float(y.detach().sum()) > 0 else y.amax((2, 3))


class SharedNorm(nn.Module):
    """One BatchNorm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3))


class TakesMore(nn.Module):
    """An optional argument, and a size of the input that is read at the very end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        size = x.shape[-2:]
        y = F.relu(self.a(F.relu(self.stem(x)))) * scale
        return F.interpolate(F.max_pool2d(y, 2), size=size)


def wrapped() -> nn.Module:
    inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    return nn.Sequential(nn.DataParallel(inner), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    "build",
    [AddsInPlace, ChangesItsInput, UntraceableInPlace, SharedNorm, TakesMore, wrapped],
    ids=lambda build: build.__name__,
)
def test_lossless_plan_gives_the_network_back(build: type[nn.Module]) -> None:
    model, data = settled(build()), images(96)
    kept = data.clone()
    network = trace(model, data[:2].clone())
    plan = full_filters(model, network)
    student = compress(model, network, plan, data, FIT_ALONE).model
    assert torch.equal(data, kept)
    for decision in plan.converted:
        assert isinstance(student.get_submodule(decision.layer), VersatileConv2d)
    with torch.no_grad():
        wanted, got = model(data.clone()), student(data.clone())
    assert float((got - wanted).norm() / (wanted - wanted.mean(0)).norm()) < 0.02


def test_network_with_sizes_of_its_input_is_cut_into_blocks() -> None:
    network = trace(TakesMore().eval(), images(2))
    assert network is not None
    assert len(network.segments) == 2


def last_layer(change: str) -> nn.Module:
    """A converted layer before a kept one that is not plain."""
    last = nn.Conv2d(8, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), last, nn.Flatten())
    if change == "hook":
        last.register_forward_hook(lambda module, inputs, output: output * 2)
    if change == "mask":
        prune.random_unstructured(last, "weight", 0.5)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("change", ["hook", "mask"])
def test_kept_layer_that_is_not_plain_is_not_refitted(change: str) -> None:
    model, data = last_layer(change), images(96)
    network, plan = planned(model, data[:2], Wish())
    student = compress(model, network, plan, data, FIT_ALONE).model
    assert torch.equal(student.get_submodule("4").bias, model.get_submodule("4").bias)  # type: ignore[arg-type]
    assert error(model, student, data) < 0.6


def test_trace_of_zeros_would_believe_what_noise_disproves() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 4, 1, bias=False), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.conv(x) * self.calls

    assert trace(Counter().eval(), torch.zeros(2, 3, 12, 12)) is not None
    assert trace(Counter().eval(), images(2)) is None


def test_output_pass_takes_outputs_that_cannot_be_trained_on() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.a(F.relu(self.stem(x))).mean((2, 3))
            return logits, logits.argmax(1)

    model, data = Chooses().eval(), images(32)
    network, plan = planned(model, data[:2], Wish(), include=("a",))
    student = compress(model, network, plan, data, FitOptions(block_steps=2, output_steps=2)).model
    assert student(data)[0].shape == (32, 5)
    shares = torch.softmax(torch.randn(4, 5), 1)
    assert float(output_loss(shares, shares)) == 0
    assert float(output_loss(shares.roll(1, 1), shares)) > 0.1


def test_plan_without_layers_changes_nothing() -> None:
    model, data = settled(SharedNorm()), images(16)
    student = compress(model, trace(model, data[:2]), Plan(decisions=()), data, FIT_ALONE).model
    assert error(model, student, data) == 0
