"""What a fine-tuning run learns from: numbered examples, each an image and its label, wherever they are kept.

`open_examples` reads the one string that says where; `FORMS` lists what it may be. Opening looks at names and tables
only; an image is decoded when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from PIL import Image
from torch import Tensor

from vfconvert.data.decoding import decode_image
from vfconvert.data.folder import ImageFolder, list_images
from vfconvert.data.foreign import torchvision_examples, user_examples
from vfconvert.data.shards import open_shards
from vfconvert.errors import NoImagesError, UntrustedModelError

FORMS = (
    "a folder of images, torchvision:NAME:FOLDER, shards-{0000..0009}.tar, "
    "package.module:function or path/to/file.py:function"
)

Label: TypeAlias = int | Image.Image | None  # a class, a mask or a clean image, or nothing known
Pixels: TypeAlias = Image.Image | Tensor | tuple[Image.Image | Tensor, ...]  # several for a network of several inputs


class Examples(Protocol):
    """Images and labels by number, `0` to `len - 1`; objects can be sent to worker processes."""

    @property
    def root(self) -> str:
        """Where they come from, for reports."""
        ...

    @property
    def classes(self) -> int:
        """How many classes the labels tell apart; 0 where the labels are no classes or nobody says how many."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, in their order; empty where nobody says."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What reports and errors call an example; no two share a name."""
        ...

    def read(self, index: int) -> tuple[Pixels, Label]:
        """Decode one example; a tensor is `(C, H, W)`. Raises `UnreadableImageError` naming what cannot be decoded."""
        ...

    def labels(self) -> tuple[int, ...] | None:
        """The class of every example where they are known without decoding, else `None`."""
        ...


def open_examples(where: str, *, targets: Path | None = None, run_code: bool = False) -> Examples:
    """The examples that `where` names, in one of `FORMS`.

    With `targets`, a second folder, the label of an image is its partner there: the file of the same stem, or of the
    same path below the folder where stems repeat. A `function` is the user's own code and runs only with `run_code`.
    Nothing is downloaded. Raises `NoImagesError` where `where` names nothing usable or partners are missing,
    `UnreadableImageError` for a damaged shard, and `UntrustedModelError` for code that may not run.
    """
    if targets is not None:
        if not Path(where).is_dir():
            raise NoImagesError(f"targets {targets} pair with a folder of images, got {where}; give a folder")
        return PairedExamples.of(list_images(Path(where)), list_images(targets))
    if Path(where).is_dir():
        return FolderExamples(list_images(Path(where)))
    if where.startswith("torchvision:"):
        return torchvision_examples(where)
    if re.search(r"\.(tar|tgz)\b", where):
        return open_shards(where)
    if ":" not in where:
        raise NoImagesError(f"cannot read images from {where}: no such folder; expected {FORMS}")
    if not run_code:
        raise UntrustedModelError(
            f"--data {where} runs code of that name, or is a folder that is not there; "
            "add --trust-data-code to run it, or correct the path"
        )
    return user_examples(where)


@dataclass(frozen=True)
class FolderExamples:
    """A folder of images; the label is the number of the subfolder, or `None` in a flat folder."""

    folder: ImageFolder

    @property
    def root(self) -> str:
        """The folder."""
        return str(self.folder.root)

    @property
    def classes(self) -> int:
        """The number of subfolders that hold images."""
        return len(self.folder.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of those subfolders."""
        return self.folder.classes

    def __len__(self) -> int:
        return len(self.folder.paths)

    def name(self, index: int) -> str:
        """The path below the folder."""
        return self.folder.paths[index].relative_to(self.folder.root).as_posix()

    def read(self, index: int) -> tuple[Image.Image, int | None]:
        """The image and its class. Raises `UnreadableImageError`."""
        path = self.folder.paths[index]
        return decode_image(path, str(path)), None if self.folder.labels is None else self.folder.labels[index]

    def labels(self) -> tuple[int, ...] | None:
        """The class of every image; `None` for a flat folder."""
        return self.folder.labels


@dataclass(frozen=True)
class PairedExamples:
    """Images of one folder, labelled with images of another: masks, or what a network is to restore."""

    images: FolderExamples
    targets: Path
    partners: tuple[Path, ...]  # one for each image, in their order

    @classmethod
    def of(cls, images: ImageFolder, targets: ImageFolder) -> PairedExamples:
        """Match every image with its partner; targets without an image are left out.

        Raises `NoImagesError` where a partner is missing.
        """
        by_stem = all(_distinct([path.stem for path in folder.paths]) for folder in (images, targets))

        def key(path: Path, root: Path) -> str:
            return path.stem if by_stem else path.relative_to(root).with_suffix("").as_posix()

        known = {key(path, targets.root): path for path in targets.paths}
        keys = [key(path, images.root) for path in images.paths]
        missing = [name for name in keys if name not in known]
        if missing:
            raise NoImagesError(
                f"{len(missing)} of {len(keys)} images in {images.root} have no partner in {targets.root}; the first "
                f"wants a file called {missing[0]}.*; add the partners or take the images out"
            )
        return cls(FolderExamples(images), targets.root, tuple(known[name] for name in keys))

    @property
    def root(self) -> str:
        """Both folders."""
        return f"{self.images.root} with {self.targets}"

    @property
    def classes(self) -> int:
        """0: the labels are images."""
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The path of the image below its folder."""
        return self.images.name(index)

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """The image and its partner. Raises `UnreadableImageError` for either."""
        return self.images.read(index)[0], decode_image(self.partners[index], str(self.partners[index]))

    def labels(self) -> None:
        """`None`: there are no classes."""
        return None


def _distinct(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)
