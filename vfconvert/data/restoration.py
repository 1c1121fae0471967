"""Pairs for super-resolution and other restoration: what the network is given, and what it should make of it.

On the fly, as in VDSR (Kim et al., 2016): the clean image is scaled down by `scale` and, for a network that does not
enlarge, up again, both bicubic and rounded to 8 bits. From two folders the pairs are as they are found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vfconvert.data.examples import Label
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.transforms import as_image, drawing, eight_bits, normalised
from vfconvert.errors import PreprocessingError


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorationTransform:
    """A clean image, or a pair of a degraded image and its label, the clean one, into input and target.

    `scale` is how many times smaller the degraded image is made, or found; 1 for pairs of equal size only. With
    `upscaled` the input is enlarged to the size of the target, without it stays small. Training takes a random square
    of `patch` target pixels, a multiple of `scale`, and mirrors half of them with `flip`; an evaluation takes the
    whole image, cut at the right and below to a multiple of `scale`. `preprocessing` gives channels, mean and std,
    the same for both. Raises `PreprocessingError` on values that describe no transform.
    """

    scale: int = 1
    upscaled: bool = True
    patch: int | None = None
    flip: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise PreprocessingError(f"--scale: got {self.scale}, expected at least 1")
        if self.patch is not None and (self.patch < 1 or self.patch % self.scale):
            raise PreprocessingError(f"--patch: got {self.patch}, expected a multiple of --scale {self.scale}")
        if self.preprocessing.size is not None or self.preprocessing.preset is not None:
            raise PreprocessingError("restoration keeps every pixel of an image; drop --size and --preset")

    def __call__(self, image: Image.Image | Tensor, label: Label, seed: int, train: bool) -> tuple[Tensor, Tensor]:
        """The input `(C, h, w)` and the target `(C, H, W)`, float32; `h` is `H` or, not upscaled, `H / scale`.

        Raises `PreprocessingError` where the sizes of a pair do not fit, or an image is smaller than a patch.
        """
        channels = self.preprocessing.channels
        first = eight_bits(as_image(image), channels)
        paired = isinstance(label, Image.Image)
        clean = eight_bits(label, channels) if isinstance(label, Image.Image) else first
        height, width = (side // self.scale * self.scale for side in clean.shape[-2:])
        if min(height, width) < (self.patch or 1 if train else 1):
            raise PreprocessingError(
                f"an image has {_size(clean)} pixels, a patch needs {self.patch or self.scale}; use a smaller --patch"
            )
        given = self._given(first, clean) if paired else self._degraded(clean[..., :height, :width])
        clean = clean[..., :height, :width]
        factor = clean.shape[-1] // given.shape[-1]
        given = given[..., : height // factor, : width // factor]
        if train:
            given, clean = self._view(given, clean, factor, seed)
        return normalised(given, self.preprocessing), normalised(clean, self.preprocessing)

    def describe(self) -> str:
        """One line for the report."""
        size = f", smaller by {self.scale}" if self.scale > 1 else ""
        enlarged = ", enlarged again" if self.scale > 1 and self.upscaled else ""
        view = "whole images" if self.patch is None else f"random {self.patch}x{self.patch} pixels"
        mirrored = ", random mirroring" if self.flip else ""
        return f"{self.preprocessing.describe()}; input bicubic{size}{enlarged}; in training {view}{mirrored}"

    def _degraded(self, clean: Tensor) -> Tensor:
        if self.scale == 1:
            raise PreprocessingError("nothing to restore: give --scale from 2, or a second folder with the targets")
        height, width = clean.shape[-2:]
        small = _bicubic(clean, height // self.scale, width // self.scale)
        return _bicubic(small, height, width) if self.upscaled else small

    def _given(self, given: Tensor, clean: Tensor) -> Tensor:
        """The degraded image of a pair, enlarged where it is small and should not be."""
        if self.upscaled and given.shape == clean.shape:
            return given
        if [side * self.scale for side in given.shape[-2:]] == list(clean.shape[-2:]):
            return _bicubic(given, *clean.shape[-2:]) if self.upscaled else given
        equal = "as large, or " if self.upscaled else ""
        raise PreprocessingError(
            f"the input has {_size(given)} pixels and its target {_size(clean)}, expected {equal}{self.scale} times as "
            "many each way; check --scale and the folders"
        )

    def _view(self, given: Tensor, clean: Tensor, factor: int, seed: int) -> tuple[Tensor, Tensor]:
        """The same random part of both, on the grid of the smaller one."""
        with drawing(seed):
            mirrored = self.flip and bool(torch.rand(()) < 0.5)
            if self.patch is not None:
                rows, columns = ((side - self.patch) // self.scale + 1 for side in clean.shape[-2:])
                top = int(torch.randint(rows, ())) * self.scale
                left = int(torch.randint(columns, ())) * self.scale
                clean = clean[..., top : top + self.patch, left : left + self.patch]
                top, left, patch = top // factor, left // factor, self.patch // factor
                given = given[..., top : top + patch, left : left + patch]
        return (given.flip(-1), clean.flip(-1)) if mirrored else (given, clean)


def _bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    scaled: Tensor = F.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)
    return scaled


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-2]}x{pixels.shape[-1]}"
