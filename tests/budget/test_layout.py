"""The copy with channels last that damage is measured on, and the networks that are used as they are."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.budget.nets import classifier, pictures
from vfconvert.budget.layout import with_channels_last

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
