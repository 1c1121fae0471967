"""What goes through the network: the input's shape, and the images to fit on and to judge by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfconvert.data.folder import ImageFolder, list_images
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.synthetic import synthesise
from vfconvert.data.tensors import load_images, split_images
from vfconvert.errors import InputShapeError, PreprocessingError
from vfconvert.options import ConversionOptions
from vfconvert.progress import Progress
from vfconvert.reporting.report import ImagesReport

Shape = tuple[int, int, int]

_DEFAULT_SIDE = 224
_HELD_OUT_BYTES = 512 * 2**20  # images held out to judge by are kept in memory
_SYNTHETIC_NUMBERS = 16 * 3 * 224 * 224  # numbers in all synthetic images: 16 of ImageNet's size, each dear to make


@dataclass(frozen=True, eq=False)
class Source:
    """Where images come from and the shape `(C, H, W)` they have."""

    shape: Shape
    folder: ImageFolder | None
    preprocessing: Preprocessing | None


@dataclass(frozen=True, eq=False)
class Images:
    """`calibration` and `judging` `(N, C, H, W)`; where both came from.

    `labels` of the latter, if known, are numbers below `classes`.
    """

    calibration: Tensor
    judging: Tensor
    labels: Tensor | None
    classes: int
    report: ImagesReport


def source_of(options: ConversionOptions, model: nn.Module) -> Source:
    """The shape from `--input-shape`, else the images, else 224x224 with the first convolution's channels."""
    channels = _channels(model)
    if options.data is None:
        _refuse_without_images(options)
        side = options.size or (_DEFAULT_SIDE, _DEFAULT_SIDE)
        return Source(shape=options.input_shape or (channels, *side), folder=None, preprocessing=None)
    if options.input_shape is not None:
        channels = options.input_shape[0]
    size = options.size
    if size is None and options.input_shape is not None and options.preset is None:
        size = options.input_shape[1:]
    preprocessing = Preprocessing(
        channels=channels, size=size, mean=options.mean, std=options.std, preset=options.preset
    )
    folder = list_images(options.data)
    shape = load_images(folder.paths[:1], preprocessing).shape[1:]
    found = (shape[0], shape[1], shape[2])
    if options.input_shape not in (None, found):
        raise InputShapeError(
            f"--input-shape {_text(options.input_shape)} but the images come out as {_text(found)}; drop one of the two"
        )
    return Source(shape=found, folder=folder, preprocessing=preprocessing)


def images_of(source: Source, options: ConversionOptions, model: nn.Module, progress: Progress) -> Images:
    """Read or make the images. Labels are never used to choose or fit, only to report accuracy."""
    if source.folder is None or source.preprocessing is None:
        return _synthetic(source.shape, options, model, progress)
    folder = source.folder
    numbers = source.shape[0] * source.shape[1] * source.shape[2]
    count = len(folder.paths)
    held_out = max(1, min(count // 5, 2000, _HELD_OUT_BYTES // (4 * numbers)))
    split = split_images(
        count, calibration=options.calibration_images, held_out=min(held_out, max(count - 1, 1)), seed=options.seed
    )

    chosen = [folder.paths[index] for index in (*split.calibration, *split.held_out)]
    tensors = load_images(chosen, source.preprocessing, progress)
    fitting = len(split.calibration)
    labels = None
    if folder.labels is not None:
        labels = torch.tensor([folder.labels[index] for index in split.held_out])
    return Images(
        calibration=tensors[:fitting],
        judging=tensors[fitting:],
        labels=labels,
        classes=len(folder.classes),
        report=ImagesReport(
            source=str(folder.root),
            method=f"a random draw of {count:,} images{_unused(folder)}",
            calibration=fitting,
            held_out=len(split.held_out),
            preprocessing=source.preprocessing.describe(),
        ),
    )


def _unused(folder: ImageFolder) -> str:
    return f" ({len(folder.unused):,} beside the class folders not used)" if folder.unused else ""


def _refuse_without_images(options: ConversionOptions) -> None:
    given = [name for name in ("mean", "std", "preset") if getattr(options, name) is not None]
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        raise PreprocessingError(f"{flags} says how images become tensors, but there is no --data; add it or drop them")
    if options.size is not None and options.input_shape not in (None, (options.input_shape or (0,))[:1] + options.size):
        raise InputShapeError(
            f"--size {_text(options.size)} and --input-shape {_text(options.input_shape)} differ; drop one of the two"
        )


def _synthetic(shape: Shape, options: ConversionOptions, model: nn.Module, progress: Progress) -> Images:
    numbers = shape[0] * shape[1] * shape[2]
    count = max(16, min(options.calibration_images, 512, _SYNTHETIC_NUMBERS // numbers))
    judged = max(4, count // 4)

    made = synthesise(model, shape, count + judged, options.seed, progress=progress)
    return Images(
        calibration=made.images[:count],
        judging=made.images[count:],
        labels=None,
        classes=0,
        report=ImagesReport(
            source="synthetic", method=made.method, calibration=count, held_out=0, preprocessing="none"
        ),
    )


def _channels(model: nn.Module) -> int:
    """Input channels of the network: the fewest of any convolution, since the first need not be defined first."""
    return min((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), default=3)


def _text(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
