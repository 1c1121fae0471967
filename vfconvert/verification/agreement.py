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
from vfconvert.verification.parity import device_of, ratio


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far outputs keep to the reference's, over `samples` images.

    `top1` is the share (0 to 1) of images with the same largest logit, None where outputs are not logits. `psnr` is
    in dB with the reference's range as the peak, None for logits, inf for equal outputs. `relative_error` is
    `‖Δ‖ / ‖y‖`. An image with a non-finite output never agrees, and makes the other figures inf or nan.
    """

    samples: int
    top1: float | None
    psnr: float | None
    relative_error: float

    @property
    def measure(self) -> str:
        """What the headline is: of logits the agreement, of all else the PSNR."""
        return "PSNR" if self.top1 is None else "top-1 agreement"

    @property
    def value(self) -> float:
        """The headline: a share of 1, or dB."""
        return float(self.psnr or 0.0) if self.top1 is None else self.top1


def agreement(reference: Tensor, outputs: Tensor) -> Agreement:
    """Compare main outputs `(N, …)` with the reference's of the same shape: logits where they are `(N, K ≥ 2)`.

    Raises `ParityError` where the shapes differ or there is no image.
    """
    if reference.shape != outputs.shape or not len(reference):
        raise ParityError(
            f"agreement: got outputs of shape {tuple(outputs.shape)}, "
            f"expected {tuple(reference.shape)} with at least one image"
        )
    y, z = reference.detach().cpu().double(), outputs.detach().cpu().double()
    relative = ratio(float((z - y).norm()), float(y.norm()))
    if y.ndim == 2 and y.shape[1] >= 2:
        finite = torch.isfinite(y).all(dim=1) & torch.isfinite(z).all(dim=1)
        same = (y.argmax(dim=1) == z.argmax(dim=1)) & finite
        return Agreement(samples=len(y), top1=float(same.double().mean()), psnr=None, relative_error=relative)
    peak = float(y.max() - y.min())
    noise = ratio(float((z - y).square().mean().sqrt()), peak)
    psnr = math.inf if noise == 0 else -math.inf if math.isinf(noise) else -20 * math.log10(noise)
    return Agreement(samples=len(y), top1=None, psnr=psnr, relative_error=relative)


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
