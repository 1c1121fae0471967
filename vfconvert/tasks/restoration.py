"""An image for each image (super-resolution, denoising): L1 or squared error, PSNR and SSIM.

As in the literature since VDSR (Kim et al., 2016) colours are compared by their luminance, ITU-R BT.601 in studio
range, `Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255` with R, G, B in 0 to 1, and a border of as many pixels as the
scale is left out. `PSNR = -10 log10(mean squared error)` with the peak 1. SSIM is that of Wang et al. (2004), with a
Gaussian window of 11 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vfconvert.errors import TrainingError
from vfconvert.tasks.meter import Meter, SumMeter, needed, wide
from vfconvert.tasks.structure import full_precision, main_tensor

_LOSSES = {"l1": F.l1_loss, "mse": F.mse_loss}
_LUMA = (65.481, 128.553, 24.966)
_MOST_DECIBELS = 100.0  # of an image without any error, so that a mean over images stays finite
_SSIM_WINDOW = 11  # pixels


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """Images `(B, C, H, W)` against images of that shape; PSNR in dB, SSIM up to 1, means over the images.

    `shave` pixels at each border are not compared. Outputs and targets are in the same units: pixels / 255, or
    `(pixels / 255 - mean) / std` with one number per channel. One channel is compared as it is, three by luminance,
    other counts as they are. An image restored without any error counts 100 dB; SSIM is taken over images of at least
    11 pixels a side, and left out of the results where there is none.
    """

    shave: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    loss: str = "l1"
    name: str = "restoration"
    metrics: tuple[str, ...] = ("psnr", "ssim")
    higher_is_better: bool = True
    pixelwise: bool = False

    def __post_init__(self) -> None:
        if self.loss not in _LOSSES:
            raise TrainingError(f"restoration loss: got {self.loss!r}, expected {' or '.join(_LOSSES)}")
        if self.shave < 0:
            raise TrainingError(f"restoration border: got {self.shave} pixels, expected 0 or more")

    def supervised_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean absolute or squared error, in the units of the targets. Raises `TrainingError` for unequal shapes."""
        return _LOSSES[self.loss](*self._pair(outputs, targets))

    def meter(self, device: torch.device) -> Meter:
        """A meter whose sums are images, their PSNR, images large enough for SSIM, and their SSIM."""
        return SumMeter(4, device, self._sums, self._result)

    def _pair(self, outputs: Any, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        wanted = needed(targets, self.name)
        images = main_tensor(outputs)
        if images is None or images.dim() != 4 or images.shape != wanted.shape:
            got = "no tensor" if images is None else tuple(images.shape)
            raise TrainingError(
                f"restoration got outputs {got} for targets {tuple(wanted.shape)}, expected images (B, C, H, W) of one "
                "shape; check the scale"
            )
        return full_precision(images), full_precision(wanted)

    def _sums(self, outputs: Any, teacher_outputs: Any | None, targets: Tensor | None) -> Tensor:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

        got, wanted = (self._compared(wide(images)) for images in self._pair(outputs, targets))
        ratios = peak_signal_noise_ratio(got, wanted, data_range=1.0, reduction="none", dim=(1, 2, 3))
        count, similarity = float(len(got)), 0.0
        large = min(got.shape[-2:]) >= _SSIM_WINDOW
        if large:
            ssim = structural_similarity_index_measure(got, wanted, data_range=1.0, reduction="none")
            similarity = float(torch.as_tensor(ssim).sum())
        decibels = float(ratios.clamp_max(_MOST_DECIBELS).sum())
        return torch.tensor([count, decibels, count * large, similarity], dtype=torch.float64)

    def _compared(self, images: Tensor) -> Tensor:
        """The planes `(B, 1 or C, H - 2 shave, W - 2 shave)` that are compared, 0 to 1."""
        height, width = images.shape[-2:]
        if min(height, width) <= 2 * self.shave:
            raise TrainingError(
                f"an image of {height}x{width} pixels has nothing left without {self.shave} at each border; "
                "take larger images"
            )
        pixels = self._units(images).clamp(0, 1)
        planes = luminance(pixels) if pixels.shape[1] == 3 else pixels
        return planes[..., self.shave : height - self.shave, self.shave : width - self.shave]

    def _units(self, images: Tensor) -> Tensor:
        """The images in units of pixels / 255."""
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, images.shape[1]):
                raise TrainingError(
                    f"restoration {what}: got {len(numbers)} numbers, expected {images.shape[1]}, one per channel"
                )
        if self.std is not None:
            images = images * images.new_tensor(self.std)[:, None, None]
        if self.mean is not None:
            images = images + images.new_tensor(self.mean)[:, None, None]
        return images

    def _result(self, sums: list[float]) -> dict[str, float]:
        count, decibels, large, similarity = sums
        return {"psnr": decibels / count} | ({"ssim": similarity / large} if large else {})


def luminance(pixels: Tensor) -> Tensor:
    """Luminance `(B, 1, H, W)`, 16/255 to 235/255, of red, green and blue `(B, 3, H, W)` in 0 to 1."""
    weights = pixels.new_tensor(_LUMA)[:, None, None]
    return ((pixels * weights).sum(1, keepdim=True) + 16) / 255
