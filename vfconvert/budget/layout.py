"""The network with channels last in memory, in which processors take about a tenth less time for a pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.exporting.outputs import named_outputs

_SAME = 1e-3  # of an output's largest number: what the order of sums may change of it


def with_channels_last(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of it that computes so, where it can: it answers `images` `(N, C, H, W)` as the model does, back too.

    Else, and on other devices, the model itself, which is left as it was. (A forward that views an activation as a
    vector takes one with channels first only.)
    """
    if next(model.parameters()).device.type != "cpu":
        return model
    try:
        turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
        pairs = zip(_answers(turned, images), _answers(model, images), strict=True)
        alike = all(got.shape == wanted.shape and _close(got, wanted) for got, wanted in pairs)
    except Exception:  # whatever its forward or its copying raises: then it is used as it is
        return model
    return turned if alike else model


def _answers(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The outputs that are floating point, after a backward pass from them."""
    with evaluating(model), torch.enable_grad():
        given = images.clone().requires_grad_(True)
        outputs = [tensor for _, tensor in named_outputs(model(given * 1)) if tensor.is_floating_point()]
        total = sum(output.sum() for output in outputs)
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward(inputs=[given])  # type: ignore[no-untyped-call]
        return [output.detach() for output in outputs]


def _close(got: Tensor, wanted: Tensor) -> bool:
    return bool((got - wanted).abs().max() <= _SAME * wanted.abs().max())
