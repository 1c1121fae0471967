"""An example into what a network is trained on: the preprocessing of an evaluation, and random views for training.

All randomness comes from one integer per example, so that a view does not depend on which process makes it, or when.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from vfconvert.data.examples import Label
from vfconvert.data.preprocessing import MODES, Preprocessing, preset_transform
from vfconvert.errors import PreprocessingError

DEFAULT_CROP_SCALE = (0.35, 1.0)


class Transform(Protocol):
    """Makes one example ready for a batch; objects can be sent to worker processes."""

    def __call__(self, image: Any, label: Label, seed: int, train: bool) -> tuple[Tensor, Tensor | None]:
        """The input `(C, H, W)` float32 and the target; the same arguments give the same bits."""
        ...

    def describe(self) -> str:
        """One line for the report."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTransform:
    """Images with a class, a mask or nothing: `preprocessing` alone in an evaluation, random views in training.

    In training an image with more pixels than the preprocessing's size is replaced by a random part of it, `crop_scale`
    (least and most share of its area) large and of aspect 3:4 to 4:3, scaled to that size; `crop_scale` given asks for
    that at any size. Other images are preprocessed as ever and then, with `padding`, padded by so many mirrored
    pixels on each side and cut back to their size at random. Half of all images are mirrored with `flip`.

    A mask (a label image of one channel, whose values are classes) goes through the same, without interpolation.
    A uint8 tensor counts as an image; a float tensor is what the user's code made of it and stays as it is.
    Raises `PreprocessingError` on values that describe no transform.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    crop_scale: tuple[float, float] | None = None
    flip: bool = True
    padding: int = 0

    def __post_init__(self) -> None:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise PreprocessingError(
                f"--crop-scale: got {self.crop_scale}, expected the least and the most share, above 0 and up to 1"
            )
        if self.crop_scale is not None and self._size() is None:
            raise PreprocessingError("--crop-scale: random parts are scaled to one size; give --size or --preset")
        if self.padding < 0:
            raise PreprocessingError(f"--padding: got {self.padding}, expected pixels from 0")

    def __call__(
        self, image: Image.Image | Tensor, label: Label, seed: int, train: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The input `(C, H, W)` float32, and as target a class `()` or a mask `(H, W)`, int64, or `None`.

        Raises `PreprocessingError` for a mask of several channels or of another size than its image.
        """
        if isinstance(image, Tensor) and image.is_floating_point():
            mask = _mask(label)
            return image.to(torch.float32), torch.tensor(label) if isinstance(label, int) else mask
        image, mask = as_image(image), _mask(label)
        if mask is not None and tuple(mask.shape) != (image.height, image.width):
            raise PreprocessingError(
                f"the mask has {mask.shape[0]}x{mask.shape[1]} pixels, its image {image.height}x{image.width}; "
                "make them the same size"
            )
        pixels, mask = self._train(image, mask, seed) if train else self._evaluate(image, mask)
        return pixels, torch.tensor(label) if isinstance(label, int) else mask

    def describe(self) -> str:
        """One line for the report: the preprocessing, and what training adds."""
        size = self._size()
        steps = []
        if size is not None:
            low, high = self.crop_scale or DEFAULT_CROP_SCALE
            which = "" if self.crop_scale else " of larger images"
            steps.append(f"random {low:.0%}-{high:.0%}{which} scaled to {size[0]}x{size[1]}")
        if self.padding:
            steps.append(f"random shift by up to {self.padding} pixels")
        if self.flip:
            steps.append("random mirroring")
        return f"{self.preprocessing.describe()}; in training {', '.join(steps) or 'the same'}"

    def _evaluate(self, image: Image.Image, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        pixels = self.preprocessing(image)
        return pixels, None if mask is None else self._fitted(mask, pixels)

    def _train(self, image: Image.Image, mask: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
        size = self._size()
        steps: list[v2.Transform] = [v2.RandomHorizontalFlip()] if self.flip else []
        if size is not None and (self.crop_scale or image.height * image.width > size[0] * size[1]):
            finish = self._without_size()
            view = eight_bits(image, finish.channels)
            steps.insert(0, v2.RandomResizedCrop(size, scale=self.crop_scale or DEFAULT_CROP_SCALE, antialias=True))
        else:
            finish = None
            view, mask = self._evaluate(image, mask)
            if self.padding:
                cut = (view.shape[-2], view.shape[-1])
                if self.padding >= min(cut):
                    raise PreprocessingError(
                        f"--padding: got {self.padding}, expected less than each side of an image of {cut[0]}x{cut[1]}"
                    )
                steps.insert(0, v2.RandomCrop(cut, padding=self.padding, padding_mode="reflect"))
        inputs = [tv_tensors.Image(view)] + ([] if mask is None else [tv_tensors.Mask(mask[None])])
        with drawing(seed):
            for step in steps:
                inputs = step(inputs)
        view = inputs[0].as_subclass(Tensor).contiguous()
        mask = None if mask is None else inputs[1].as_subclass(Tensor)[0].contiguous()
        return view if finish is None else normalised(view, finish), mask

    def _size(self) -> tuple[int, int] | None:
        """`(height, width)` of what the preprocessing makes, where it is fixed."""
        if self.preprocessing.preset is None:
            return self.preprocessing.size
        preset = preset_transform(self.preprocessing.preset)
        # segmentation presets scale the shorter side only; their training takes squares of that
        sides = getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None)
        return None if sides is None else (int(sides[0]), int(sides[-1]))

    def _without_size(self) -> Preprocessing:
        if self.preprocessing.preset is None:
            return replace(self.preprocessing, size=None)
        preset = preset_transform(self.preprocessing.preset)
        return Preprocessing(
            mean=tuple(getattr(preset, "mean", (0, 0, 0))), std=tuple(getattr(preset, "std", (1, 1, 1)))
        )

    def _fitted(self, mask: Tensor, pixels: Tensor) -> Tensor:
        """The mask `(H, W)` after the geometry that the preprocessing gave `pixels`."""
        height, width = pixels.shape[-2:]
        covering = [height, width]
        if self.preprocessing.preset is not None:
            preset = preset_transform(self.preprocessing.preset)
            covering = list(getattr(preset, "resize_size", None) or covering)
        elif self.preprocessing.size is not None:
            factor = max(height / mask.shape[0], width / mask.shape[1])
            covering = [max(height, round(mask.shape[0] * factor)), max(width, round(mask.shape[1] * factor))]
        scaled = F.resize(tv_tensors.Mask(mask[None]), covering, InterpolationMode.NEAREST)
        cut: Tensor = F.center_crop(scaled, [height, width]).as_subclass(Tensor)[0].contiguous()
        return cut


def as_image(image: Image.Image | Tensor) -> Image.Image:
    """A uint8 tensor `(C, H, W)` of 1 or 3 channels as an image; an image as it is."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype is not torch.uint8 or image.shape[0] not in MODES:
        raise PreprocessingError(
            f"an image tensor is {tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}, "
            "expected (1 or 3, H, W) uint8"
        )
    made: Image.Image = F.to_pil_image(image)
    return made


def eight_bits(image: Image.Image, channels: int) -> Tensor:
    """The pixels `(C, H, W)` uint8 in 1 or 3 channels, converted as `Preprocessing` does."""
    if image.mode == MODES[channels]:
        pixels: Tensor = F.pil_to_tensor(image)
        return pixels
    return (Preprocessing(channels=channels)(image) * 255).round().to(torch.uint8)


def normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """`(x / 255 - mean) / std` of uint8 pixels `(C, H, W)`, as float32."""
    scaled = pixels.to(torch.float32) / 255
    mean = preprocessing.mean or (0.0,) * preprocessing.channels
    std = preprocessing.std or (1.0,) * preprocessing.channels
    made: Tensor = F.normalize(scaled, list(mean), list(std))
    return made


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Random numbers of one seed within, the state as it was afterwards; a GPU's state is not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _mask(label: Label) -> Tensor | None:
    """The classes `(H, W)` int64 of a label image; `None` for other labels."""
    if not isinstance(label, Image.Image):
        return None
    classes = torch.from_numpy(np.array(label)).to(torch.int64)
    if classes.dim() != 2:
        raise PreprocessingError(
            f"a mask has mode {label.mode}, expected one channel whose values are classes; convert it to mode L or P"
        )
    return classes
