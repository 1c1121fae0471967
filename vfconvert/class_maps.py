"""Segmentations to look at: the class of every pixel as a colour over the image, and where two networks differ."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor
from torch.nn import functional as F

_TURN = 0.381966  # of the circle of hues from class to class, so that near numbers have far colours
_OPAQUE = 0.6


def could_be_class_maps(outputs: Tensor) -> bool:
    """Whether outputs have the shape of logits of every pixel, `(N, K, H, W)` of two classes or more."""
    return outputs.dim() == 4 and outputs.shape[1] >= 2


def classes_of(outputs: Tensor) -> Tensor:
    """Logits `(N, K, H, W)` to classes `(N, H, W)` int64."""
    return outputs.argmax(1)


def alike(first: Tensor, second: Tensor, known: Tensor | None = None) -> float | None:
    """The share (0 to 1) of the pixels of two maps `(H, W)` that have the same class; None where none are `known`."""
    same = first == second
    counted = same if known is None else same[known]
    return float(counted.double().mean()) if counted.numel() else None


def coloured(classes: Tensor, pixels: Tensor) -> Tensor:
    """The colours of classes `(h, w)` over an image `(1 or 3, H, W)` of pixels / 255 in grey: `(3, H, W)`.

    Negative classes, which are none, get the colour of the first.
    """
    number = int(classes.max()) + 1 if classes.numel() else 0
    colours = torch.tensor([colour(index) for index in range(max(number, 1))], dtype=pixels.dtype)
    placed = resized(classes, (pixels.shape[-2], pixels.shape[-1])).clamp_min(0)
    grey = pixels.mean(0, keepdim=True).clamp(0, 1)
    return _OPAQUE * colours[placed].permute(2, 0, 1) + (1 - _OPAQUE) * grey


def resized(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """A map `(h, w)` at another size, each pixel the class of the one it lies in."""
    scaled = F.interpolate(classes[None, None].double(), size, mode="nearest")
    return scaled[0, 0].to(classes.dtype)


def colour(index: int) -> tuple[float, float, float]:
    """Red, green, blue of a class, 0 to 1; the first is black, as background mostly is."""
    if index == 0:
        return (0.0, 0.0, 0.0)
    return colorsys.hsv_to_rgb((index * _TURN) % 1.0, 0.85 if index % 2 else 0.55, 1.0)
