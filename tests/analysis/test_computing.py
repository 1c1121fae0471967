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


class ViewsImages(Rest):
    """Takes images with channels first only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) + x.view(len(x), -1).mean(1, keepdim=True)


class Fewer(Rest):
    def rest(self, y: Tensor) -> Any:
        return (y.mean((2, 3)),) * (2 if y.is_contiguous() else 1)


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


@pytest.mark.parametrize("kind", [Views, ViewsImages, Fewer, Looks, Forked, ReadsBack, Uncopied])
def test_what_cannot_compute_so_is_used_as_it_is(kind: type[nn.Module]) -> None:
    model = kind().eval()
    assert with_channels_last(model, IMAGES) is model
    assert model.conv.weight.is_contiguous()


def test_meta_such_a_network_without_that_is_turned() -> None:
    model = Rest().eval()
    assert last(with_channels_last(model, IMAGES))


def test_a_classifier_computes_in_bfloat16() -> None:
    model = classifier().float().requires_grad_(True)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    assert computes_in(torch.bfloat16, model, IMAGES)
    assert all(map(torch.equal, weights, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


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


class Small(Rest):
    """One map is small beside the other, and is all that does not compute so."""

    def rest(self, y: Tensor) -> Tensor:
        return torch.cat([1000 * y[:, :1].float(), (y[:, 1:2] + 100).float() - 100], 1)


class Grows(Rest):
    """Its answers are right, its gradients are no numbers."""

    def rest(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) + (y.float() - y.float()).abs().sqrt().sum() * (y.dtype == torch.bfloat16)


@pytest.mark.parametrize("kind", [Cancels, Refuses, Finds, Small, Grows])
def test_what_does_not_compute_in_bfloat16(kind: type[nn.Module]) -> None:
    model = kind().eval()
    assert not computes_in(torch.bfloat16, model, IMAGES)
    with torch.autocast("cpu", torch.bfloat16):  # whatever a caller computes in
        assert not computes_in(torch.bfloat16, model, IMAGES)


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


@pytest.mark.parametrize(("version", "quick"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_are_quick_in_bfloat16_since_they_have_units_for_it(
    version: tuple[int, int], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: version)
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    assert is_quick_in_bfloat16(torch.device("cuda"), depthwise) == quick
