"""Examples of several images, for networks of several inputs.

The items of a dataset may hold as many images (what else an item holds is left out, but for a class or a mask after
them), or one tensor of all their channels. Elsewhere images follow one another like the frames of a video: example `i`
is image `i`, image `i + 1` and so on, in the order of names, all of one folder.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from vfconvert.data.examples import Examples, FolderExamples, Label, PairedExamples
from vfconvert.data.foreign import DatasetExamples, picture
from vfconvert.data.transforms import TrainTransform
from vfconvert.errors import NoImagesError, PreprocessingError

Picture: TypeAlias = Image.Image | Tensor


@dataclass(frozen=True, eq=False)
class FollowingExamples:
    """`count` images of `examples` in a row, from each of `starts` on; classes are none of theirs."""

    examples: Examples
    count: int
    starts: tuple[int, ...]

    @property
    def root(self) -> str:
        """Where the images come from, and how many make an example."""
        return f"{self.examples.root}, {self.count} in a row"

    @property
    def classes(self) -> int:
        """0: none are known."""
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def __len__(self) -> int:
        return len(self.starts)

    def name(self, index: int) -> str:
        """The names of all of them."""
        return " + ".join(self.examples.name(self.starts[index] + step) for step in range(self.count))

    def read(self, index: int) -> tuple[tuple[Picture, ...], None]:
        """The images in order. Raises `UnreadableImageError` for any."""
        found = [self.examples.read(self.starts[index] + step)[0] for step in range(self.count)]
        return tuple(image for image in found if not isinstance(image, tuple)), None

    def labels(self) -> None:
        """`None`: there are no classes."""
        return None


@dataclass(frozen=True, eq=False)
class TogetherExamples:
    """The images that the items of a dataset hold together, `channels` being those of each input."""

    examples: DatasetExamples
    channels: tuple[int, ...]

    @property
    def root(self) -> str:
        """Where the dataset comes from."""
        return self.examples.root

    @property
    def classes(self) -> int:
        """What the dataset says; 0 where it does not."""
        return self.examples.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the dataset says."""
        return self.examples.class_names

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        """As the dataset's item."""
        return self.examples.name(index)

    def read(self, index: int) -> tuple[tuple[Picture, ...], Label]:
        """The images, and the class or mask that follows them.

        Raises `UnreadableImageError` where getting an item raises, `NoImagesError` where it holds other things.
        """
        found = images_together(self.examples.item(index), len(self.channels), self.channels)
        if found is None:
            raise NoImagesError(
                f"{self.name(index)}: expected a tuple of {len(self.channels)} images, or a tensor of all their "
                f"{sum(self.channels)} channels, as the first item is"
            )
        images, rest = found
        label = rest[0] if len(rest) == 1 else None
        checked = tuple(picture(image, f"{self.name(index)}, image {place}") for place, image in enumerate(images, 1))
        if isinstance(label, Image.Image):
            return checked, label
        return checked, self.examples.class_of(index, label) if _is_number(label) else None

    def labels(self) -> tuple[int, ...] | None:
        """Those of the dataset, where it knows them."""
        return self.examples.labels()


def images_together(item: Any, count: int, channels: Sequence[int] | None = None) -> tuple[list[Any], list[Any]] | None:
    """The images that an item of a dataset holds, and what else; None where it does not hold `count` of them."""
    parts = list(item) if isinstance(item, (tuple, list)) else [item]
    if parts and isinstance(parts[0], (tuple, list)):
        inside = list(parts[0])
        return (inside, parts[1:]) if len(inside) == count else None
    if parts and channels is not None and isinstance(parts[0], Tensor) and parts[0].dim() == 3:
        whole: Tensor = parts[0]
        if len(whole) == sum(channels):
            return list(torch.split(whole, list(channels))), parts[1:]
    if len(parts) >= count and all(isinstance(part, (Image.Image, Tensor)) for part in parts[:count]):
        return parts[:count], parts[count:]
    return None


def channels_together(examples: DatasetExamples, count: int) -> tuple[int, ...] | None:
    """The channels of each image that the first item holds, 3 for a picture; None where it holds not so many."""
    found = images_together(examples.item(0), count)
    if found is None:
        return None
    return tuple(image.shape[0] if isinstance(image, Tensor) and image.dim() == 3 else 3 for image in found[0])


def in_tuples(examples: Examples, channels: tuple[int, ...]) -> FollowingExamples | TogetherExamples:
    """Examples of as many images as there are inputs, of `channels` each. Raises `NoImagesError`."""
    count = len(channels)
    if isinstance(examples, PairedExamples):
        raise NoImagesError("--target-data goes with networks of one input; leave it out")
    if isinstance(examples, DatasetExamples) and images_together(examples.item(0), count, channels) is not None:
        return TogetherExamples(examples, channels)
    if len(set(channels)) > 1:
        raise NoImagesError(
            f"{examples.root}: gives single images, and the network's inputs have {' and '.join(map(str, channels))} "
            "channels; give a dataset (--data MODULE:FUNCTION, or from Python) whose items are tuples of all inputs"
        )
    starts = range(len(examples) - count + 1)
    if isinstance(examples, FolderExamples):  # the last frame of one video is not followed by the first of another
        paths = examples.folder.paths
        starts_of_folders = [at for at in starts if paths[at].parent == paths[at + count - 1].parent]
    else:
        starts_of_folders = list(starts)
    if len(starts_of_folders) < 2:
        raise NoImagesError(
            f"{examples.root}: holds {len(starts_of_folders)} times {count} images in a row, expected at least 2: "
            "one to fit, one to verify; add images to a folder"
        )
    return FollowingExamples(examples, count, tuple(starts_of_folders))


@dataclass(frozen=True)
class SeveralTransform:
    """Every image by a transform of its own, at random alike for all; then side by side along the channels."""

    each: tuple[TrainTransform, ...]
    channels: tuple[int, ...]

    def __call__(self, image: Sequence[Picture], label: Label, seed: int, train: bool) -> tuple[Tensor, Tensor | None]:
        """The inputs `(C, H, W)` float32, C all channels, and the target.

        Raises `PreprocessingError` where an image comes out with other channels than its input has, or sizes differ.
        """
        first, target = self.each[0](image[0], label, seed, train)
        others = [
            transform(other, None, seed, train)[0] for transform, other in zip(self.each[1:], image[1:], strict=True)
        ]
        made = [first, *others]
        for place, (one, count) in enumerate(zip(made, self.channels, strict=True), 1):
            if one.shape != (count, *first.shape[1:]):
                advice = "inputs of one height and width; use --size"
                if len(one) != count:
                    advice = f"the network's input {place} has {count} channels; give it such images"
                raise PreprocessingError(
                    f"image {place} of an example comes out as {'x'.join(map(str, one.shape))}, expected "
                    f"{'x'.join(map(str, (count, *first.shape[1:])))}: {advice}"
                )
        return torch.cat(made), target

    def describe(self) -> str:
        """One line for the report."""
        return self._each([transform.describe() for transform in self.each])

    def describe_prepared(self) -> str:
        """That line without what training adds."""
        return self._each([transform.preprocessing.describe() for transform in self.each])

    def _each(self, said: Sequence[str]) -> str:
        return f"each of {len(said)} inputs: {'; or '.join(dict.fromkeys(said))}"


def _is_number(value: Any) -> bool:
    """Whether a value is a whole number, of numpy or torch perhaps."""
    try:
        operator.index(value)
    except (TypeError, ValueError):
        return False
    return True
