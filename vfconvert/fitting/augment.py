"""More from the same images: copies moved, stretched and mixed, on which the teacher answers just as well.

Mixing two images linearly and matching the teacher on the mixture is mixup (Zhang et al., ICLR 2018) without labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random changes per image.

    `mirror`: left and right exchanged half the time. `shift`: by up to this share of each side. `stretch`: both sides
    by up to this share, longer or shorter, with resampling. `mix`: a random share of another image of the batch. The
    last two pay only in passes of several thousand steps, and are off.
    """

    mirror: bool = True
    shift: float = 0.125
    stretch: float = 0.0
    mix: bool = False

    @classmethod
    def none(cls) -> Augmentation:
        """Images as they are."""
        return cls(mirror=False, shift=0.0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        if self.mirror:
            flipped = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
        if self.stretch:
            images = self._resampled(images, generator)
        elif self.shift:
            images = self._moved(images, generator)
        if self.mix:
            share = torch.rand(len(images), 1, 1, 1, generator=generator)
            images = share * images + (1 - share) * images[torch.randperm(len(images), generator=generator)]
        return images

    def _moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """By whole pixels: every pixel of the result is one of the image's."""
        height, width = images.shape[2:]
        down, right = int(self.shift * height), int(self.shift * width)
        if down == right == 0:
            return images
        padded = F.pad(images, (right, right, down, down), mode="reflect")
        tops = torch.randint(0, 2 * down + 1, (len(images),), generator=generator).tolist()
        lefts = torch.randint(0, 2 * right + 1, (len(images),), generator=generator).tolist()
        return torch.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, top, left in zip(padded, tops, lefts, strict=True)
            ]
        )

    def _resampled(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Scaled in height and width and moved, bilinear, mirrored beyond the edges."""
        to = torch.zeros(len(images), 2, 3)
        scale = 1 + self.stretch * (2 * torch.rand(len(images), 2, generator=generator) - 1)
        to[:, 0, 0], to[:, 1, 1] = scale[:, 0], scale[:, 1]
        # A grid runs from -1 to 1: a shift by one side is 2.
        to[:, :, 2] = 2 * self.shift * (2 * torch.rand(len(images), 2, generator=generator) - 1)
        grid = F.affine_grid(to, list(images.shape), align_corners=False).to(images)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
