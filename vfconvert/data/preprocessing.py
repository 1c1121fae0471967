"""From an image file's pixels to what the network was trained on: `(C, H, W)` float32.

`y = (x / 255 - mean) / std` after an optional resize, or a torchvision weights preset, which decides all of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import torch
from PIL import Image
from torch import Tensor
from torchvision.models import get_model_weights, get_weight, list_models
from torchvision.transforms.v2 import functional as F

from vfconvert.errors import PreprocessingError

MODES = {1: "L", 3: "RGB"}
_SINGLE_IMAGE_TRANSFORMS = frozenset({"ImageClassification", "SemanticSegmentation", "ObjectDetection"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How one image becomes one tensor.

    `channels` is 1 (luminance, ITU-R 601) or 3 (RGB). `size` is `(height, width)`: the image is scaled, aspect kept,
    until it just covers that size, and its centre is cut out; an image of that size already is left as it is, bit for
    bit. `mean` and `std`, one number per channel in units of pixels / 255, default to 0 and 1. `preset` is the name of
    torchvision weights, whose own transforms are used; it decides size, mean and std, so these are not given.
    EXIF rotation is not applied, as in torchvision's datasets. Raises `PreprocessingError` on any other values.
    """

    channels: int = 3
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise PreprocessingError(
                f"images become tensors of 1 or 3 channels, got {self.channels}; leave the data folder out"
            )
        if self.size is not None and min(self.size) < 1:
            raise PreprocessingError(f"--size: got {self.size[0]}x{self.size[1]}, expected at least 1x1 pixels")
        for name, values in (("--mean", self.mean), ("--std", self.std)):
            if values is None:
                continue
            if len(values) != self.channels:
                raise PreprocessingError(
                    f"{name}: got {len(values)} numbers, expected one per channel: {self.channels}"
                )
            if not all(isfinite(value) for value in values):
                raise PreprocessingError(f"{name}: got {_numbers(values)}, expected finite numbers")
        if self.std is not None and min(self.std) <= 0:
            raise PreprocessingError(f"--std: got {_numbers(self.std)}, expected numbers above 0")
        if self.preset is not None:
            self._check_preset(self.preset)

    def _check_preset(self, preset: str) -> None:
        preset_transform(preset)
        given = [name for name in ("size", "mean", "std") if getattr(self, name) is not None]
        if given:
            flags = ", ".join(f"--{name}" for name in given)
            raise PreprocessingError(
                f"--preset {preset} already decides size, mean and std; drop {flags} or the preset"
            )
        if self.channels != 3:
            raise PreprocessingError(
                f"--preset {preset} makes 3 channels, the network takes {self.channels}; use --size, --mean and --std"
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """The image as the network wants it, `(C, H, W)` float32."""
        image = _in_mode(image, MODES[self.channels])
        if self.preset is not None:
            return preset_transform(self.preset)(image)
        if self.size is not None and (image.height, image.width) != self.size:
            image = _cover(image, self.size)
        tensor: Tensor = F.pil_to_tensor(image).to(torch.float32) / 255
        if self.mean is None and self.std is None:
            return tensor
        mean, std = self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels
        normalised: Tensor = F.normalize(tensor, list(mean), list(std))
        return normalised

    def pixels(self, tensor: Tensor) -> Tensor:
        """Back to pixels / 255: what was prepared so, or a network's answer in the same units, `(…, C, H, W)`."""
        mean, std = self.mean, self.std
        if self.preset is not None:
            known = preset_transform(self.preset)
            mean, std = (tuple(getattr(known, key, None) or ()) or None for key in ("mean", "std"))
        pixels = tensor if std is None else tensor * tensor.new_tensor(std)[:, None, None]
        return pixels if mean is None else pixels + tensor.new_tensor(mean)[:, None, None]

    def describe(self) -> str:
        """One line for the report: everything that happens to an image, defaults included."""
        if self.preset is not None:
            return f"RGB, torchvision preset {self.preset}"
        colours = "luminance" if self.channels == 1 else "RGB"
        size = "own size" if self.size is None else f"covering, then centre {self.size[0]}x{self.size[1]}"
        mean, std = self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels
        return f"{colours}, {size}, pixels / 255, mean {_numbers(mean)}, std {_numbers(std)}"


@lru_cache(maxsize=8)
def preset_transform(name: str) -> Callable[[Image.Image], Tensor]:
    """The transforms of torchvision weights, for instance "ResNet50_Weights.IMAGENET1K_V2".

    Raises `PreprocessingError` where there are no such weights, naming the nearest, and where their transforms do not
    take one image (video, optical flow).
    """
    try:
        transform: Callable[[Image.Image], Tensor] = get_weight(name).transforms()
    except (ValueError, KeyError, TypeError) as error:
        known = [str(member) for model in list_models() for member in get_model_weights(model)]
        by_lower_case = {member.lower(): member for member in known}
        nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0)[0]
        raise PreprocessingError(
            f"--preset: no torchvision weights are called {name!r}; the nearest is {by_lower_case[nearest]}"
        ) from error
    if type(transform).__name__ not in _SINGLE_IMAGE_TRANSFORMS:
        raise PreprocessingError(
            f"--preset {name}: its transforms ({type(transform).__name__}) do not take single images; use --size"
        )
    return transform


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image with 8-bit pixels in the wanted mode; transparency is dropped."""
    if image.mode == mode:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit greys at 255 instead of scaling them
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a palette's transparency has no meaning in the modes below and would warn
    return image.convert(mode)


def _cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled until it just covers `size`, then cut to its centre."""
    factor = max(size[0] / image.height, size[1] / image.width)
    covering = [max(want, round(have * factor)) for want, have in zip(size, (image.height, image.width), strict=True)]
    cut: Image.Image = F.center_crop(F.resize(image, covering), list(size))
    return cut


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
