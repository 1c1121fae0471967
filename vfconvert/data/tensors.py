"""Image files into one tensor, and which images serve for the fit and which are held out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vfconvert.container import processors
from vfconvert.data.decoding import decode_image
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.errors import NoImagesError, PreprocessingError
from vfconvert.progress import Progress, no_progress

_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.2, 2_000
_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Indices of two disjoint sets of images, each in the random order in which it was drawn."""

    calibration: tuple[int, ...]
    held_out: tuple[int, ...]

    @property
    def choosing(self) -> tuple[int, ...]:
        """The half of the held-out images that helps to choose; the other half judges what was chosen."""
        return self.held_out[: max(1, len(self.held_out) // 2)]


def split_images(
    count: int, *, calibration: int, held_out: int | None = None, labels: Sequence[int] | None = None, seed: int
) -> Split:
    """Draw the held-out images first, then at most `calibration` of the rest.

    `held_out` is by default 20 % of the images, at least 1 and at most 2,000. With `labels`, one per image, both sets
    hold the classes in the proportion of the folder, as nearly as whole images allow. The same seed and arguments give
    the same split. Raises `NoImagesError` where fewer than 2 images leave nothing for one of the two sets, and
    where the counts asked for are not possible.
    """
    if count < 2:
        raise NoImagesError(f"the data folder holds {count} image(s), expected at least 2: one to fit, one to verify")
    if held_out is None:
        held_out = max(1, min(int(count * _HELD_OUT_SHARE), _HELD_OUT_MOST))
    if not 1 <= held_out < count:
        raise NoImagesError(f"held-out images: got {held_out} of {count}, expected 1 to {count - 1}; add images")
    if calibration < 1:
        raise NoImagesError(f"--calibration-images: got {calibration}, expected at least 1")
    order = _proportional_order([0] * count if labels is None else labels, seed)
    return Split(calibration=order[held_out:][:calibration], held_out=order[:held_out])


def _proportional_order(labels: Sequence[int], seed: int) -> tuple[int, ...]:
    """A random order of the images, every stretch of which holds the classes in proportion.

    The `r`-th of the `n` images of a class, in random order, stands at about `r / n` of the way.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = torch.tensor(list(labels), dtype=torch.int64)
    position = torch.empty(len(classes), dtype=torch.float64)
    for label in sorted(set(labels)):
        members = (classes == label).nonzero().flatten()
        ranks = torch.randperm(len(members), generator=generator) + torch.rand(
            len(members), generator=generator, dtype=torch.float64
        )
        position[members] = ranks / len(members)
    return tuple(torch.argsort(position).tolist())


def load_images(paths: Sequence[Path], preprocessing: Preprocessing, progress: Progress = no_progress) -> Tensor:
    """Read images into `(N, C, H, W)` float32, in the order of `paths`; only these files are opened.

    Raises `UnreadableImageError` naming the file that cannot be decoded, `PreprocessingError` where images come out in
    different sizes, and `NoImagesError` where there are no paths.
    """
    if not paths:
        raise NoImagesError("no images to read: got an empty list of files")
    return stacked(
        len(paths),
        lambda index: preprocessing(decode_image(paths[index], str(paths[index]))),
        lambda i: str(paths[i]),
        progress,
    )


def stacked(
    count: int, read: Callable[[int], Tensor], name: Callable[[int], str], progress: Progress = no_progress
) -> Tensor:
    """What `read` gives for each number below `count`, `(N, C, H, W)`, read by several threads.

    Raises `PreprocessingError` where images come out in different sizes, naming two by `name`, and what `read` raises.
    """
    first = read(0)
    images = torch.empty(count, *first.shape)
    images[0] = first

    def fill(index: int) -> None:  # threads write in place, so that every image is held once
        image = read(index)
        if image.shape != first.shape:
            raise PreprocessingError(
                f"images of different sizes: {name(0)} is {_size(first)}, {name(index)} is {_size(image)}; use --size"
            )
        images[index] = image

    with ThreadPoolExecutor(min(_MOST_THREADS, processors())) as pool:
        futures = [pool.submit(fill, index) for index in range(1, count)]
        try:
            for done, future in enumerate(futures, 2):
                future.result()
                progress("read images", done, count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _size(image: Tensor) -> str:
    return f"{image.shape[-2]}x{image.shape[-1]}"
