"""More from the same images: mirrored and shifted copies, on which the teacher answers just as well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random mirror images and shifts of up to `shift` of each side, per image; off where both are."""

    mirror: bool = True
    shift: float = 0.125

    @classmethod
    def none(cls) -> Augmentation:
        """Images as they are."""
        return cls(mirror=False, shift=0.0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`(B, C, H, W)` to the same shape, on the device of the images; the generator is a processor's."""
        if self.mirror:
            flipped = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
        down, right = (int(self.shift * side) for side in images.shape[2:])
        if down == right == 0:
            return images
        height, width = images.shape[2:]
        padded = F.pad(images, (right, right, down, down), mode="reflect")
        tops = torch.randint(0, 2 * down + 1, (len(images),), generator=generator).tolist()
        lefts = torch.randint(0, 2 * right + 1, (len(images),), generator=generator).tolist()
        return torch.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, top, left in zip(padded, tops, lefts, strict=True)
            ]
        )
