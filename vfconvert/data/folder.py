"""A folder of images: which files, and which class each belongs to.

Labelled: `root/<class>/**/image`, where the first-level subfolder is the class, however deep the image lies below it.
Flat: `root/image`, no labels. Where both occur the subfolders win, since a stray picture beside class folders is the
likelier accident, and the loose images are listed in `ImageFolder.unused` for the report to mention.
Hidden files and folders, and other suffixes, are passed over; links to folders are followed at the first level only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vfconvert.errors import NoImagesError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder:
    """Images in sorted order. `labels[i]` is the index into `classes` of `paths[i]`; a flat folder has no labels."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    unused: tuple[Path, ...] = ()


def list_images(folder: Path) -> ImageFolder:
    """All images of a folder, labelled by its subfolders where these hold any.

    Classes are the names of the subfolders that hold images, in alphabetical order, as torchvision's datasets number
    them. Raises `NoImagesError` where `folder` is missing, is not a folder, cannot be read or holds no image.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise NoImagesError(f"cannot read images from {folder}: {reason}; give a folder of images") from error
    loose = tuple(entry for entry in entries if _is_image(entry))
    by_class = {entry.name: tuple(_images_below(entry)) for entry in entries if entry.is_dir()}
    by_class = {name: paths for name, paths in by_class.items() if paths}
    if by_class:
        classes = tuple(by_class)
        labels = tuple(index for index, name in enumerate(classes) for _ in by_class[name])
        paths = tuple(path for name in classes for path in by_class[name])
        return ImageFolder(root=folder, paths=paths, labels=labels, classes=classes, unused=loose)
    if loose:
        return ImageFolder(root=folder, paths=loose, labels=None, classes=())
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    raise NoImagesError(f"no images in {folder} or its subfolders: looked for files that end in {suffixes}")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images_below(folder: Path) -> Iterator[Path]:
    """Every image in a folder and below it, the order of names in each folder."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in sorted(files) if _is_image(path := Path(parent, name)))
