"""The copy with channels last, bfloat16, and the networks that are used as they are."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.budget.nets import classifier, pictures
from vfconvert.analysis import computing
from vfconvert.analysis.computing import computes_in, is_quick_in_bfloat16, with_channels_last

IMAGES = pictures(2).float()


def last(model: nn.Module) -> bool:
    weights = [p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_copy_computes_with_channels_last() -> None:
    model = classifier().float()
    turned = with_channels_last(model, IMAGES)
    assert turned is not model
    assert last(turned)
    assert not last(model)
    with torch.no_grad():
        assert float((turned(IMAGES) - model(IMAGES)).abs().max()) < 1e-5


class Rest(nn.Module):
    """A convolution, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv(x))

    def rest(self, y: Tensor) -> Tensor:
        return y.mean((2, 3))


class Views(Rest):
    def rest(self, y: Tensor) -> Tensor:
        return y.view(len(y), -1)


class Looks(Rest):
    def rest(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) * (1.0 if y.is_contiguous() else 1.01)


class Forked(Rest):
    def rest(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) if y.is_contiguous() else y.mean((1, 2))


class _ReadsBack(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, y: Tensor) -> Tensor:
        context.first = y.is_contiguous()
        return y.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        if not context.first:
            raise RuntimeError("what was kept is read with channels first")
        return gradients[0]


class ReadsBack(Rest):
    def rest(self, y: Tensor) -> Tensor:
        return cast(Tensor, _ReadsBack.apply(y)).mean((2, 3))


class Uncopied(Rest):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("one of a kind")


@pytest.mark.parametrize("kind", [Views, Looks, Forked, ReadsBack, Uncopied])
def test_what_cannot_compute_so_is_used_as_it_is(kind: type[nn.Module]) -> None:
    model = kind().eval()
    assert with_channels_last(model, IMAGES) is model
    assert model.conv.weight.is_contiguous()


def test_meta_such_a_network_without_that_is_turned() -> None:
    model = Rest().eval()
    assert last(with_channels_last(model, IMAGES))


def test_a_classifier_computes_in_bfloat16() -> None:
    model = classifier().float()
    weights = [parameter.clone() for parameter in model.parameters()]
    assert computes_in(torch.bfloat16, model, IMAGES)
    assert all(map(torch.equal, weights, model.parameters()))
    assert not any(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())


class Cancels(Rest):
    """Small differences of numbers that are large, which eight bits of a number do not hold."""

    def rest(self, y: Tensor) -> Tensor:
        return ((y + 1000) - 1000).mean((2, 3))


class Refuses(Rest):
    def rest(self, y: Tensor) -> Tensor:
        if y.dtype == torch.bfloat16:
            raise NotImplementedError("no kernel for such numbers")
        return y.mean((2, 3))


class Finds(Rest):
    """As many rows for each image as objects in it."""

    def forward(self, x: Tensor) -> Any:
        found = self.conv(x).mean((2, 3))
        return [found[:1, :5], found[:, :5]]


@pytest.mark.parametrize("kind", [Cancels, Refuses, Finds])
def test_what_does_not_compute_in_bfloat16(kind: type[nn.Module]) -> None:
    assert not computes_in(torch.bfloat16, kind().eval(), IMAGES)


def test_meta_such_a_network_without_that_computes_in_bfloat16() -> None:
    assert computes_in(torch.bfloat16, Rest().eval(), IMAGES)


@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_is_quick_where_the_processor_has_units_for_it_and_nothing_is_depthwise(
    units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "_has_amx", lambda: units)
    processor = torch.device("cpu")
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(1, 8, 3), nn.ReLU())
    assert is_quick_in_bfloat16(processor, grouped) == units
    assert not is_quick_in_bfloat16(processor, nn.Sequential(grouped, nn.Conv2d(8, 8, 3, groups=8)))
    assert not is_quick_in_bfloat16(torch.device("meta"), grouped)


def test_units_are_looked_for_in_versions_of_torch_that_say_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert computing._has_amx()
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not computing._has_amx()
