"""What goes through the network: the input's shape, and the images to fit on and to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vfconvert.data.examples import Examples, FolderExamples, open_examples
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.data.several import SeveralTransform, in_tuples
from vfconvert.data.synthetic import synthesise
from vfconvert.data.tensors import Split, split_images, stacked
from vfconvert.data.transforms import TrainTransform, Transform
from vfconvert.errors import InputShapeError, NoImagesError, PreprocessingError, UnreadableImageError
from vfconvert.nn.several_inputs import Inputs
from vfconvert.options import ConversionOptions
from vfconvert.progress import Progress
from vfconvert.reporting.report import ImagesReport
from vfconvert.reporting.units import plural
from vfconvert.several import prepared_channels, refuse_targets, several_transform

Shape = tuple[int, int, int]

_DEFAULT_SIDE = 224
_FEW = 64  # images of which one is sure to be readable
_HELD_OUT_BYTES = 512 * 2**20  # images held out to judge by are kept in memory
_USUAL, _FEWEST = 1024, 16  # images to fit on, where --calibration-images does not say
_CALIBRATION_BYTES = 2 * 2**30  # of these images
_UNTRACED_MACS = 2e13  # of one pass over them, where a network cannot be traced and takes many
_SYNTHETIC_NUMBERS = 16 * 3 * 224 * 224  # numbers in all synthetic images: 16 of ImageNet's size, each dear to make


@dataclass(frozen=True, eq=False)
class Source:
    """Where images come from and the shape `(C, H, W)` they have."""

    shape: Shape
    examples: Examples | None = None
    transform: Transform | None = None
    preprocessing: str = "none"

    def read(self, index: int) -> Tensor:
        """What the network is given of one image, `(C, H, W)`."""
        return self.pair(index)[0]

    def pair(self, index: int) -> tuple[Tensor, Tensor | None]:
        """What the network is given of one image, `(C, H, W)`, and what it is compared with."""
        if self.examples is None or self.transform is None:
            raise ValueError("there are no images to read")
        patches = isinstance(self.transform, RestorationTransform) and self.transform.patch is not None
        # Whole images of a restoration differ in size, so that parts of them stand for all.
        return self.transform(*self.examples.read(index), index, patches)

    def readable(self, indices: Sequence[int], most: float) -> tuple[int, ...]:
        """The images that can be decoded. Raises `UnreadableImageError` where more than `most` of all cannot."""

        def reason(index: int) -> str | None:
            try:
                self.read(index)
            except UnreadableImageError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:
            reasons = dict(zip(indices, pool.map(reason, indices), strict=True))
        wrong = [said for said in reasons.values() if said is not None]
        if len(wrong) > most * len(self.examples or ()):
            raise UnreadableImageError(
                f"{len(wrong)} image(s) cannot be decoded, more than {most:.3g} of all: {wrong[0]}"
            )
        return tuple(index for index, said in reasons.items() if said is None)

    def split(self, options: ConversionOptions, calibration: int) -> Split:
        """Which images are held out to judge by, and so many of the others."""
        count, numbers = len(self.examples or ()), self.shape[0] * self.shape[1] * self.shape[2]
        held_out = max(1, min(count // 5, 2000, _HELD_OUT_BYTES // (4 * numbers)))
        return split_images(
            count, calibration=calibration, held_out=min(held_out, max(count - 1, 1)), seed=options.seed
        )


@dataclass(frozen=True, eq=False)
class Images:
    """`calibration` and `judging` `(N, C, H, W)`; where both came from.

    `labels` of the latter, if known, are numbers below `classes`. Its first `choosing` help to choose where something
    is chosen; the others judge. `notes` are sentences that the user should read.
    """

    calibration: Tensor
    judging: Tensor
    labels: Tensor | None
    classes: int
    choosing: int
    report: ImagesReport
    indices: tuple[int, ...] = ()  # which examples judge; none where there are none
    notes: tuple[str, ...] = ()

    def half(self, flag: str) -> int:
        """How many of the images to judge by are chosen on; the others judge the result. Raises `NoImagesError`."""
        if not 0 < self.choosing < len(self.judging):
            raise NoImagesError(
                f"{flag} chooses on half of the images held out and judges on the other: got {self.choosing} and "
                f"{len(self.judging) - self.choosing} of them, expected 1 or more each; give more images"
            )
        return self.choosing


def source_of(
    options: ConversionOptions,
    model: nn.Module,
    stated: tuple[int | None, ...] = (None, None, None),
    examples: Examples | None = None,
    inputs: Inputs | None = None,
) -> Source:
    """The shape from `--input-shape`, else the images, else 224x224 with the first convolution's channels.

    What the model's file states of it, `(C, H, W)`, comes before the last. `examples` stand in for `--data`. Of several
    `inputs` the shape is that of all side by side, and examples are of as many images.
    """
    whole = options.whole_shape
    if inputs is not None:
        refuse_targets(options)
    channels = stated[0] or _channels(model)
    height, width = (side or _DEFAULT_SIDE for side in stated[1:])
    if options.data is None and examples is None:
        _refuse_without_images(options)
        return Source(shape=whole or (channels, *(options.size or (height, width))))
    if whole is not None:
        channels = whole[0]
    if inputs is not None:
        channels = prepared_channels(inputs, options)
    size = options.size
    if size is None and options.preset is None and whole is None and None not in stated:
        size = (height, width)
    if size is None and whole is not None and options.preset is None:
        size = whole[1:]
    preprocessing = Preprocessing(
        channels=channels, size=size, mean=options.mean, std=options.std, preset=options.preset
    )
    training = options.training
    if examples is None:
        examples = open_examples(str(options.data), targets=options.target_data, run_code=options.trust_data_code)
    views = TrainTransform(
        preprocessing=preprocessing, crop_scale=training.crop_scale, flip=training.flip, padding=training.padding
    )
    transform: Transform = views
    if inputs is not None:
        examples, transform = in_tuples(examples, inputs.channels), several_transform(views, inputs)
    elif training.scale is not None or (options.target_data is not None and training.task != "segmentation"):
        transform = RestorationTransform(
            scale=training.scale or 1, patch=training.patch, flip=training.flip, preprocessing=preprocessing
        )
    said = transform.describe_prepared() if isinstance(transform, SeveralTransform) else preprocessing.describe()
    source = Source(shape=(0, 0, 0), examples=examples, transform=transform, preprocessing=said)
    few = range(min(len(examples), _FEW))
    first = source.readable(few, training.most_unreadable)[0] if training.epochs else 0
    shape = source.read(first).shape
    if _is_prepared(examples.read(first)[0]):
        _refuse_preparing(options)
        source = replace(source, preprocessing="none: tensors are taken as they are")
    found = (shape[0], shape[1], shape[2])
    if whole not in (None, found):
        raise InputShapeError(
            f"--input-shape {_text(whole)} but the images come out as {_text(found)}; drop one of the two"
        )
    return replace(source, shape=found)


def _is_prepared(image: object) -> bool:
    """Whether an example is what the network is given, and no picture."""
    if isinstance(image, tuple):
        return all(map(_is_prepared, image))
    return isinstance(image, Tensor) and image.is_floating_point()


def _refuse_preparing(options: ConversionOptions) -> None:
    given = [name for name in ("size", "mean", "std", "preset") if getattr(options, name) is not None]
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        raise PreprocessingError(
            f"{flags} says how pictures become tensors, but the data gives tensors of floating point, which are taken "
            "as they are; drop it, or give pictures"
        )


def images_of(
    source: Source, options: ConversionOptions, model: nn.Module, progress: Progress, untraced_macs: int = 0
) -> Images:
    """Read or make the images. Labels are never used to choose or fit, only to report accuracy.

    `untraced_macs` are multiply-adds of one image in a network that cannot be traced. Where `--calibration-images` does
    not say how many to fit on, these and the memory for the images limit their number.
    """
    examples = source.examples
    if examples is None:
        return _synthetic(source.shape, options, model, progress)
    calibration, reason = options.calibration_images, ""
    if calibration is None:
        calibration, reason = _affordable(source.shape, untraced_macs)
    split = source.split(options, calibration)
    unused = len(examples) - len(split.held_out) - len(split.calibration)
    choosing, first = len(split.choosing), set(split.choosing)
    if options.training.epochs:  # what is left out there is told, and does not end hours of work
        most = options.training.most_unreadable
        split = Split(
            calibration=source.readable(split.calibration, most), held_out=source.readable(split.held_out, most)
        )
        choosing = sum(index in first for index in split.held_out)
    chosen = (*split.calibration, *split.held_out)
    tensors = stacked(
        len(chosen), lambda number: source.read(chosen[number]), lambda number: examples.name(chosen[number]), progress
    )
    fitting = len(split.calibration)
    known = examples.labels()
    return Images(
        calibration=tensors[:fitting],
        judging=tensors[fitting:],
        labels=torch.tensor([known[index] for index in split.held_out]) if known is not None else None,
        classes=examples.classes,
        choosing=choosing,
        report=ImagesReport(
            source=examples.root,
            method=f"a random draw of {len(examples):,} images{_unused(examples)}",
            calibration=fitting,
            held_out=len(split.held_out),
            preprocessing=source.preprocessing,
        ),
        indices=split.held_out,
        notes=(
            f"{reason}: {plural(fitting, 'image')} of {fitting + unused:,} were used to fit on; "
            "--calibration-images N takes more",
        )
        if reason and unused
        else (),
    )


def _affordable(shape: Shape, untraced_macs: int) -> tuple[int, str]:
    """How many images `(C, H, W)` to fit on, and why not as many as usual."""
    size = 4 * shape[0] * shape[1] * shape[2]
    by_memory, by_work = _CALIBRATION_BYTES // size, int(_UNTRACED_MACS // max(1, untraced_macs))
    count = max(_FEWEST, min(_USUAL, by_memory, by_work))
    if count == _USUAL:
        return count, ""
    if by_memory <= by_work:
        return count, f"{_USUAL:,} images of {_text(shape)} take {_USUAL * size / 2**30:.3g} GiB of memory"
    return count, (
        f"the network cannot be traced, so that it is run many times, of {untraced_macs / 1e9:.3g} GMACs an image"
    )


def _unused(examples: Examples) -> str:
    unused = examples.folder.unused if isinstance(examples, FolderExamples) else ()
    return f" ({len(unused):,} beside the class folders not used)" if unused else ""


def _refuse_without_images(options: ConversionOptions) -> None:
    given = [name for name in ("mean", "std", "preset") if getattr(options, name) is not None]
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        raise PreprocessingError(f"{flags} says how images become tensors, but there is no --data; add it or drop them")
    whole = options.whole_shape
    if options.size is not None and whole not in (None, (whole or (0,))[:1] + options.size):
        raise InputShapeError(
            f"--size {_text(options.size)} and --input-shape {_text(whole)} differ; drop one of the two"
        )


def _synthetic(shape: Shape, options: ConversionOptions, model: nn.Module, progress: Progress) -> Images:
    numbers = shape[0] * shape[1] * shape[2]
    count = max(16, min(options.calibration_images or _USUAL, 512, _SYNTHETIC_NUMBERS // numbers))
    judged = max(4, count // 4)

    made = synthesise(model, shape, count + judged, options.seed, progress=progress)
    return Images(
        calibration=made.images[:count],
        judging=made.images[count:],
        labels=None,
        classes=0,
        choosing=judged // 2,
        report=ImagesReport(
            source="synthetic", method=made.method, calibration=count, held_out=0, preprocessing="none"
        ),
    )


def _channels(model: nn.Module) -> int:
    """Input channels of the network: the fewest of any convolution, since the first need not be defined first."""
    return min((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), default=3)


def _text(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))
