"""Images for the fit where the user gives none: coloured noise, shaped until BatchNorm's statistics recognise it.

Photographs have an amplitude spectrum near `1 / f`; noise of that kind is the start. Where the network has BatchNorm
layers, their running means and variances remember what the training images looked like inside the network. The noise
is optimised (Adam on the pixels) until a batch of it reproduces them:

    mean over layers and channels of  KL(N(m, v) || N(m_running, v_running))
        = 1/2 (v / v_running + (m - m_running)^2 / v_running - 1 - log(v / v_running))

For a classifier two small terms ask that the images be diverse and look like something: the entropy of the mean
prediction is raised, that of every single prediction lowered. (Random classes as targets fit worse: pixels that are
driven to a class far from what the noise resembles leave the statistics.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from vfconvert.errors import FitError
from vfconvert.progress import Progress, no_progress

Shape = tuple[int, int, int]

_CHROMA = 0.35  # colour's share of the noise, against 1 of luminance
_CONTRAST = 0.35  # standard deviation of the logarithm of an image's contrast
_LEARNING_RATE = 0.05  # of a pixel, in standard deviations of the images
_DIVERSITY, _CONFIDENCE = 0.005, 0.0005  # weights of the two entropies, in nats, beside the mean divergence
_BATCH_PIXELS = 131_072  # 128 images of 32x32: statistics of a batch must be steady, and its activations fit in memory
_FEWEST_IN_BATCH, _MOST_IN_BATCH = 16, 128
_FEWEST_STEPS, _MOST_STEPS = 4, 20
_MAC_BUDGET = 8 * 10**11  # products of all steps, forward and backward: within a minute on two cores


@dataclass(frozen=True, eq=False)
class SyntheticImages:
    """`images` `(N, C, H, W)` float32, as the network takes them (already normalised), and how they were made.

    `method` is "bn-matched" or "noise".
    """

    images: Tensor
    method: str


def noise_images(shape: Shape, count: int, seed: int, exponent: float = 1.5) -> Tensor:
    """Noise with an amplitude spectrum of `1 / f^exponent`, `(count, C, H, W)` float32 for `shape` `(C, H, W)`.

    Every image has zero mean over all its numbers and unit variance times a random contrast squared. Channels share a
    luminance part and differ in a smaller chroma part, as those of photographs do.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    amplitude = frequency.clamp_min(1 / max(height, width)) ** -exponent
    white = torch.randn(count, channels + 1, height, width, generator=generator)
    coloured = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    coloured = _standardised(coloured, (2, 3))
    images = coloured[:, :1] + _CHROMA * coloured[:, 1:] if channels > 1 else coloured[:, :1]
    contrast = torch.exp(_CONTRAST * torch.randn(count, 1, 1, 1, generator=generator))
    return _standardised(images, (1, 2, 3)) * contrast


def _standardised(x: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    centred = x - x.mean(dimensions, keepdim=True)
    return centred / centred.square().mean(dimensions, keepdim=True).sqrt().clamp_min(1e-12)


def synthesise(
    model: nn.Module, shape: Shape, count: int, seed: int, *, steps: int | None = None, progress: Progress = no_progress
) -> SyntheticImages:
    """`count` images of `shape` `(C, H, W)` that the network takes for what it was trained on.

    Without a BatchNorm2d that runs and tracks statistics: `noise_images`. Otherwise each batch of 16 to 128
    images is optimised for `steps` steps; by default as many, 4 to 20, as an allowance of products permits. The same
    seed gives the same images. The model is left as it was: modes, gradients, hooks; the global random state is not
    touched.
    Raises `FitError` where the network's statistics are not finite.
    """
    norms = _tracking_norms(model)
    if not norms:
        return SyntheticImages(noise_images(shape, count, seed), "noise")
    size = max(_FEWEST_IN_BATCH, min(_MOST_IN_BATCH, _BATCH_PIXELS // (shape[1] * shape[2])))
    noise = noise_images(shape, count, seed)
    # batches of nearly equal size: a small one at the end would have to match the statistics alone
    batches = torch.tensor_split(noise, max(1, round(count / size)))
    with _evaluating(model):
        with torch.no_grad(), _watching(norms) as seen, FlopCounterMode(display=False) as counter:
            model(noise[:1].to(next(model.parameters())))
        if not seen:  # norms that the network never runs remember nothing of use
            return SyntheticImages(noise, "noise")
        steps = _affordable_steps(counter.get_total_flops(), count) if steps is None else steps
        matched = []
        for number, batch in enumerate(batches):
            matcher = _Matcher(model, norms, batch)
            for step in range(steps):
                matcher.step(step / steps)
                progress("synthesise images", number * steps + step + 1, len(batches) * steps)
            matched.append(matcher.images.detach())
    return SyntheticImages(torch.cat(matched), "bn-matched")


class _Matcher:
    """One batch of images on its way from noise to matched statistics."""

    def __init__(self, model: nn.Module, norms: list[_Norm], noise: Tensor) -> None:
        self._model, self._norms = model, norms
        self.images = noise.clone().requires_grad_()
        self._optimiser = torch.optim.Adam([self.images], _LEARNING_RATE)

    def step(self, done: float) -> None:
        """One step on the pixels; `done` is the share of steps behind, and the step shrinks with it."""
        with torch.enable_grad():
            like = next(self._model.parameters())  # its device and number type
            with _watching(self._norms) as divergences:
                output = self._model(self.images.to(like))
            loss = torch.stack(divergences).mean() + _entropy_term(output)
            if not bool(torch.isfinite(loss)):
                raise FitError(
                    "synthetic images: the network's activations are not finite on noise; give real images with --data"
                )
            # gradients of the pixels only: those of the weights are neither computed nor touched
            (self.images.grad,) = torch.autograd.grad(loss, self.images)
        self._optimiser.param_groups[0]["lr"] = _LEARNING_RATE * (1 - done)
        self._optimiser.step()


@dataclass(frozen=True, eq=False)
class _Norm:
    """A BatchNorm2d and what it remembers, `(C,)` each; `variance` includes its epsilon."""

    module: nn.BatchNorm2d
    mean: Tensor
    variance: Tensor

    def divergence(self, x: Tensor) -> Tensor:
        """Mean over the channels of `x` `(B, C, H, W)` of the equation at the top, a scalar."""
        x = x.float()
        variance = x.var((0, 2, 3), correction=0) + self.module.eps
        shift = (x.mean((0, 2, 3)) - self.mean).square()
        return 0.5 * ((variance + shift) / self.variance - 1 - torch.log(variance / self.variance)).mean()


def _entropy_term(output: object) -> Tensor:
    """Low where logits `(B, K)` are diverse over the batch and each sure; 0 for whatever else a network returns."""
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < 2:
        return torch.zeros(())
    predictions = output.float().softmax(1)
    return _CONFIDENCE * _entropy(predictions).mean() - _DIVERSITY * _entropy(predictions.mean(0))


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(1e-9).log()).sum(-1)


def _tracking_norms(model: nn.Module) -> list[_Norm]:
    return [
        _Norm(module, module.running_mean.float(), module.running_var.float() + module.eps)
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
    ]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within, every module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _watching(norms: list[_Norm]) -> Iterator[list[Tensor]]:
    """Collect the divergence of every BatchNorm's input from its running statistics during a forward pass."""
    divergences: list[Tensor] = []

    def watch(norm: _Norm) -> RemovableHandle:
        return norm.module.register_forward_pre_hook(
            lambda module, inputs: divergences.append(norm.divergence(inputs[0]))
        )

    hooks = [watch(norm) for norm in norms]
    try:
        yield divergences
    finally:
        for hook in hooks:
            hook.remove()


def _affordable_steps(forward_flops: int, count: int) -> int:
    """Steps that keep all products of a synthesis within the allowance, as far as the bounds permit."""
    forward_and_backward = forward_flops  # 2 FLOPs a product, and 2 passes of as many products each
    return max(_FEWEST_STEPS, min(_MOST_STEPS, _MAC_BUDGET // max(1, forward_and_backward * count)))
