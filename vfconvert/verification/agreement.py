"""How far the converted network is still what the original was, on real images; it only tells, and never judges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfconvert.analysis.forward import evaluating
from vfconvert.errors import ParityError
from vfconvert.exporting.outputs import main_output
from vfconvert.portions import Portion
from vfconvert.verification.parity import device_of
from vfconvert.verification.rounding import ratio

TOP1_AGREEMENT, PIXEL_AGREEMENT, PSNR = "top-1 agreement", "pixel agreement", "PSNR"


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far outputs keep to the reference's, over `samples` images.

    `top1` is the share (0 to 1) of images, `pixels` that of the pixels of maps, with the same largest logit; `psnr` is
    in dB with the reference's range as the peak, inf for equal outputs. One of the three is known, the others are None.
    `relative_error` is `‖Δ‖ / ‖y‖`. A non-finite output never agrees, and makes the other figures inf or nan.
    """

    samples: int
    top1: float | None = None
    pixels: float | None = None
    psnr: float | None = None
    relative_error: float

    @property
    def measure(self) -> str:
        """What the headline is: of logits the agreement, of all else the PSNR."""
        if self.top1 is not None:
            return TOP1_AGREEMENT
        return PSNR if self.pixels is None else PIXEL_AGREEMENT

    @property
    def value(self) -> float:
        """The headline: a share of 1, or dB."""
        known = (value for value in (self.top1, self.pixels, self.psnr) if value is not None)
        return next(known, 0.0)


def agreement(reference: Tensor, outputs: Tensor, *, class_maps: bool = False) -> Agreement:
    """Compare main outputs `(N, …)` with the reference's of the same shape: logits where they are `(N, K ≥ 2)`.

    With `class_maps` outputs `(N, K, H, W)` are logits of every pixel.

    Raises `ParityError` where the shapes differ or there is no image.
    """
    if reference.shape != outputs.shape or not len(reference):
        raise ParityError(
            f"agreement: got outputs of shape {tuple(outputs.shape)}, "
            f"expected {tuple(reference.shape)} with at least one image"
        )
    y, z = reference.detach().cpu().double(), outputs.detach().cpu().double()
    relative = ratio(float((z - y).norm()), float(y.norm()))
    if class_maps or (y.ndim == 2 and y.shape[1] >= 2):
        finite = torch.isfinite(y).all(dim=1) & torch.isfinite(z).all(dim=1)
        same = float(((y.argmax(dim=1) == z.argmax(dim=1)) & finite).double().mean())
        if class_maps:
            return Agreement(samples=len(y), pixels=same, relative_error=relative)
        return Agreement(samples=len(y), top1=same, relative_error=relative)
    peak = float(y.max() - y.min())
    noise = ratio(float((z - y).square().mean().sqrt()), peak)
    psnr = math.inf if noise == 0 else -math.inf if math.isinf(noise) else -20 * math.log10(noise)
    return Agreement(samples=len(y), psnr=psnr, relative_error=relative)


def top1_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share (0 to 1) of rows of `(N, K)` whose largest logit is that of the label `(N,)`; non-finite rows fail."""
    logits, labels = logits.detach().cpu(), labels.detach().cpu()
    right = (logits.argmax(dim=1) == labels) & torch.isfinite(logits).all(dim=1)
    return float(right.double().mean())


def predict(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The main outputs `(N, …)` of images `(N, C, H, W)` on the CPU: in eval mode, without gradients.

    Of several outputs the main one is that called "out", else the first (see `main_output`). Images go to the
    model's device batch by batch, fewer at once where memory runs out; the model's train or eval modes are restored.
    """
    device = device_of(model)

    def predicted(size: int) -> Tensor:
        return torch.cat([main_output(model(batch.clone().to(device))).cpu() for batch in torch.split(images, size)])

    with evaluating(model):
        return Portion(batch_size).fitted(predicted)
