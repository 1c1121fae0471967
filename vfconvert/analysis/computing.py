"""Quicker ways to compute a network, each tried on the network before it is used: channels last, sixteen bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.tasks.structure import matched

_SAME = 1e-3  # of an output's largest number: what the order of sums may change of it
_NEAR = 0.02  # of how much an output varies: what sixteen bits may change of it (networks of torchvision: 0.005)

Outputs = Callable[[Any], list[Tensor]]


def floats_of(value: Any) -> list[Tensor]:
    """The outputs that are floating point, in order. Raises what `matched` does."""
    return [output for _, output, _ in matched(value, value)]


def with_channels_last(model: nn.Module, images: Tensor, outputs: Outputs = floats_of) -> nn.Module:
    """A copy of it that computes so, where it can: it answers `images` `(N, C, H, W)` as the model does, back too.

    Answers are the `outputs` of what it returns. Else the model itself, which is left as it was. (A forward that views
    an activation as a vector takes one with channels first only.)
    """
    try:
        turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
        got, _ = _answers(turned, images.to(memory_format=torch.channels_last), outputs)
        wanted, _ = _answers(model, images, outputs)
        alike = all(_same(*pair) for pair in zip(got, wanted, strict=True))
    except Exception:  # whatever its forward or its copying raises: then it is used as it is
        return model
    return turned if alike else model


def computes_in(dtype: torch.dtype, model: nn.Module, images: Tensor) -> bool:
    """Whether a network answers `images` `(N, C, H, W)` nearly the same where autocast has it compute in `dtype`.

    And has finite gradients. Not where its outputs vary in number: what it finds may then differ.
    """
    try:
        with torch.autocast(images.device.type, dtype):
            got, gradient = _answers(model, images, floats_of)
        with torch.autocast(images.device.type, enabled=False):
            wanted, _ = _answers(model, images, floats_of)
        finite = bool(torch.isfinite(gradient).all())
        return finite and all(_near(*pair) for pair in zip(got, wanted, strict=True))
    except Exception:  # an operator that has no such numbers, most likely
        return False


def is_quick_in_bfloat16(device: torch.device, model: nn.Module) -> bool:
    """Whether convolutions of such numbers have units of their own there: AMX in processors, tensor cores since 8.0.

    On a processor depthwise convolutions take longer so, and networks that have them with these.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _has_amx() and not any(map(_is_depthwise, model.modules()))


def _has_amx() -> bool:
    known = getattr(torch.cpu, "get_capabilities", None)  # of newer versions of torch
    if known is not None:
        return bool(known().get("amx_bf16", False))
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


def _answers(model: nn.Module, images: Tensor, outputs: Outputs) -> tuple[list[Tensor], Tensor]:
    """The outputs, and the gradient of their sum by the images (zeros where there is none)."""
    with evaluating(model), torch.enable_grad():
        given = images.clone().requires_grad_(True)
        found = outputs(model(given * 1))
        total = sum(output.sum() for output in found)
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward(inputs=[given])  # type: ignore[no-untyped-call]
        gradient = given.grad if given.grad is not None else torch.zeros_like(images)
        return [output.detach().float() for output in found], gradient


def _same(got: Tensor, wanted: Tensor) -> bool:
    return got.shape == wanted.shape and bool((got - wanted).abs().max() <= _SAME * wanted.abs().max())


def _near(got: Tensor, wanted: Tensor) -> bool:
    """Of maps channel by channel: some may be small beside others."""
    axes = [axis for axis in range(wanted.dim()) if axis != 1 or wanted.dim() < 3]
    away = (got - wanted).square().mean(axes)
    return got.shape == wanted.shape and bool((away <= _NEAR**2 * wanted.var(axes, correction=0)).all())
