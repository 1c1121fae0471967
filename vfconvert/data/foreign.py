"""Datasets that other code defines: torchvision's by name, and the user's own by `module:function`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torchvision import datasets

from vfconvert.errors import NoImagesError, UnreadableImageError, UntrustedModelError, first_line
from vfconvert.user_code import import_file, modules_beside

_PARTS = ("train", "test", "val")
# Datasets of images and classes whose code was read, of torchvision 0.29: none unpickles a file, but for CIFAR's, whose
# MD5 sums are compared before, and for what torch.load reads with weights_only (MNIST's and ImageNet's).
_READ = (
    *(
        "Caltech101",
        "Caltech256",
        "CelebA",
        "CIFAR10",
        "CIFAR100",
        "CLEVRClassification",
        "Country211",
        "DTD",
        "EMNIST",
    ),
    *(
        "EuroSAT",
        "FashionMNIST",
        "FER2013",
        "FGVCAircraft",
        "Flowers102",
        "Food101",
        "GTSRB",
        "ImageFolder",
        "ImageNet",
    ),
    *("Imagenette", "INaturalist", "KMNIST", "LFWPeople", "MNIST", "Omniglot", "OxfordIIITPet", "PCAM", "Places365"),
    *("QMNIST", "RenderedSST2", "SEMEION", "StanfordCars", "STL10", "SUN397", "SVHN", "USPS"),
)
_UNPICKLING = ("LSUN", "LSUNClass")
_DECIDED = frozenset({"self", "root", "transform", "target_transform", "transforms", "download", "loader"})


@dataclass(frozen=True, eq=False)
class DatasetExamples:
    """Any object with `__len__` and `__getitem__` that gives an image, or an image and its label.

    Classes are taken from its `classes` (names or a number), labels from its `targets` or `labels`, where it has them.
    """

    root: str
    dataset: Any
    from_code: bool = False

    def __reduce__(self) -> tuple[Callable[..., DatasetExamples], tuple[object, ...]]:
        # classes of a file given by path cannot be imported in another process, so the function is called again there
        return (user_examples, (self.root,)) if self.from_code else (DatasetExamples, (self.root, self.dataset))

    @property
    def classes(self) -> int:
        """What the dataset says, or one more than its largest label; 0 where neither is known."""
        said = getattr(self.dataset, "classes", None)
        if isinstance(said, int):
            return said
        labels = None if hasattr(said, "__len__") else self.labels()
        return max(labels) + 1 if labels else len(said or ())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The dataset's `classes` where they are texts, or tuples of synonyms of which the first is taken."""
        said = getattr(self.dataset, "classes", None)
        named = [name[0] if isinstance(name, tuple) and name else name for name in said or ()] if _is_list(said) else []
        return tuple(named) if all(isinstance(name, str) for name in named) else ()

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """Where the examples come from, and the number in brackets."""
        return f"{self.root}[{index}]"

    def read(self, index: int) -> tuple[Image.Image | Tensor, int | Image.Image | None]:
        """The item as it is given, checked.

        Raises `UnreadableImageError` where getting it raises, `NoImagesError` where it is no image or label.
        """
        item = self.item(index)
        parts = tuple(item) if isinstance(item, (tuple, list)) and len(item) in (1, 2) else (item,)
        image, label = (*parts, None)[:2]  # one by itself: what a TensorDataset of images gives
        image = picture(image, self.name(index))
        return image, label if label is None or isinstance(label, Image.Image) else self.class_of(index, label)

    def item(self, index: int) -> Any:
        """The item as it is given, its pictures read. Raises `UnreadableImageError` where that raises."""
        try:
            item = self.dataset[index]
            for part in tree_leaves(item):
                if isinstance(part, Image.Image):
                    part.load()  # which closes its file
        except Exception as error:  # whatever the code behind it raises
            raise UnreadableImageError(f"cannot read {self.name(index)}: {first_line(error)}") from error
        return item

    def class_of(self, index: int, label: object) -> int:
        """The class that an item is labelled with. Raises `NoImagesError` where it is none."""
        try:
            number = operator.index(label)  # type: ignore[arg-type]  # numpy's and torch's integers too
        except (TypeError, ValueError):
            number = -1
        if number < 0:
            raise NoImagesError(
                f"{self.name(index)} is labelled with {_kind(label)}, expected a class from 0, an image or None"
            )
        return number

    def labels(self) -> tuple[int, ...] | None:
        """The `targets` or `labels` of the dataset where they are one class from 0 per image, else `None`."""
        for attribute in ("targets", "labels"):
            try:
                labels = tuple(operator.index(label) for label in getattr(self.dataset, attribute))
            except (AttributeError, TypeError, ValueError):
                continue
            if len(labels) == len(self) and min(labels) >= 0:
                return labels
        return None


def picture(image: object, name: str) -> Image.Image | Tensor:
    """An image as a dataset gives it; a tensor on the CPU. Raises `NoImagesError` where it is none."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, Tensor) and image.dim() == 3 and (image.dtype is torch.uint8 or image.is_floating_point()):
        return image.detach().cpu()  # batches are made there, from whatever device the dataset lies on
    raise NoImagesError(
        f"{name} is {_kind(image)}, expected a PIL image or a tensor (C, H, W), uint8 or float, alone or with a label"
    )


def torchvision_examples(where: str) -> DatasetExamples:
    """A classification dataset of torchvision, `torchvision:NAME:FOLDER[:train|:test|:val][:argument=value]`.

    Without a part it is the one torchvision takes by default, the training images. Nothing is downloaded. Raises
    `NoImagesError` where the name, an argument or the files are wrong, or its items are not an image and a class, and
    `UntrustedModelError` for a dataset that could run code from a file.
    """
    _, name, *rest = where.split(":")
    options: list[str] = []
    while len(rest) > 1 and (rest[-1] in _PARTS or "=" in rest[-1]):
        options.append(rest.pop())
    if not name or not "".join(rest):
        raise NoImagesError(f"--data {where}: expected torchvision:NAME:FOLDER, for instance torchvision:CIFAR10:/data")
    maker = _dataset_class(where, name)
    offered = [key for key in inspect.signature(maker).parameters if key not in _DECIDED]
    arguments = _arguments(where, options, offered)
    if "download" in inspect.signature(maker).parameters:
        arguments["download"] = False
    try:
        examples = DatasetExamples(where, maker(":".join(rest), **arguments))
        length = len(examples)
    except Exception as error:  # missing files, packages, values it does not know
        raise NoImagesError(
            f"--data {where}: torchvision cannot open it: {first_line(error)}; put the files there, none are downloaded"
        ) from error
    if length == 0:
        raise NoImagesError(f"--data {where}: holds no images; check the folder")
    _check_labelled(where, examples)
    return examples


def _dataset_class(where: str, name: str) -> Callable[..., Any]:
    known = [key for key in datasets.__all__ if inspect.isclass(getattr(datasets, key)) and key != "VisionDataset"]
    if name in known:
        _refuse_unread(where, name)
        maker: Callable[..., Any] = getattr(datasets, name)
        return maker
    by_lower_case = {key.lower(): key for key in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0)[0]
    raise NoImagesError(f"--data {where}: torchvision has no dataset {name!r}; the nearest is {by_lower_case[nearest]}")


def _refuse_unread(where: str, name: str) -> None:
    if name not in _READ:
        why = "it unpickles a file of the current directory, which could run any code"
        if name not in _UNPICKLING:
            why = "it is none of the datasets of images and classes that are known to run no code from their files"
        raise UntrustedModelError(
            f"--data {where}: torchvision's {name} is not opened by name, since {why}; copy its images into a folder, "
            "or make it in a function of yours and give --data module:function with --trust-data-code"
        )


def _arguments(where: str, options: list[str], offered: list[str]) -> dict[str, object]:
    """Keyword arguments of the options: `train` is `train=True` for some datasets and `split="train"` for others."""
    arguments: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if equals and key in offered and key != "train":
            arguments[key] = value
        elif not equals and "train" in offered and option != "val":
            arguments["train"] = option == "train"
        elif not equals and "split" in offered:
            arguments["split"] = option
        else:
            raise NoImagesError(
                f"--data {where}: this dataset has no option {option!r}; it takes {', '.join(offered) or 'none'}"
            )
    return arguments


def _check_labelled(where: str, examples: DatasetExamples) -> None:
    try:
        _, label = examples.read(0)
        problem = None if isinstance(label, int) else f"its labels are {_kind(label)}"
    except NoImagesError as error:
        problem = str(error)
    except UnreadableImageError:  # one damaged file; the run counts these
        return
    if problem:
        raise NoImagesError(f"--data {where}: not a dataset of images and classes: {problem}; use module:function")


def user_examples(where: str) -> DatasetExamples:
    """What the user's function returns, `package.module:function` or `path/to/file.py:function`; runs that code.

    Raises `NoImagesError` where there is no such function, where it raises, and where it returns no dataset.
    """
    source, _, name = where.rpartition(":")
    try:
        with modules_beside(source):
            module = import_file(source, "data") if source.endswith(".py") else importlib.import_module(source)
            dataset = getattr(module, name)()
    except (Exception, SystemExit) as error:
        raise NoImagesError(
            f"--data {where}: running it raised {type(error).__name__} ({first_line(error)}); correct it"
        ) from error
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise NoImagesError(f"--data {where}: returned {_kind(dataset)}, expected an object with a length and items")
    examples = DatasetExamples(where, dataset, from_code=True)
    if len(examples) == 0:
        raise NoImagesError(f"--data {where}: returned a dataset of no images")
    return examples


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _kind(value: object) -> str:
    """What an unexpected value is, for an error."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return repr(value) if isinstance(value, (int, float, type(None))) else f"a {type(value).__name__}"
