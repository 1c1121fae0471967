"""How many inputs a network is given, and their shapes: from what the user states, or the images given together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vfconvert.data.examples import Examples
from vfconvert.data.foreign import DatasetExamples
from vfconvert.data.preprocessing import MODES, Preprocessing
from vfconvert.data.several import SeveralTransform, channels_together
from vfconvert.data.transforms import TrainTransform
from vfconvert.errors import InputShapeError
from vfconvert.loading.onnx_inputs import StatedInput
from vfconvert.nn.several_inputs import Inputs, input_names, positional_names, takes_any_number
from vfconvert.options import ConversionOptions

_AGAIN = "give --input-shape once for each of them, in their order (input_shape=[(C, H, W), …] from Python)"
_TOGETHER = "data whose items are tuples of as many images, like TensorDataset(first, second)"


def wanted_inputs(
    model: nn.Module,
    options: ConversionOptions,
    examples: Examples | None = None,
    stated: Sequence[StatedInput] = (),
) -> Inputs | None:
    """The inputs that the network is to be given, None for one.

    They are those of `--input-shape`; else those that the file has `stated`; where that says nothing, and the first of
    the `examples` holds as many images as the network needs, those of that. Raises `InputShapeError` where that is
    another number than the network takes, and where inputs differ in height or width.
    """
    shapes = options.input_shapes
    names, needed = positional_names(model)
    who, instead = type(model).__name__, ", or wrap it in a module whose forward takes one tensor of images"
    if stated:
        names, who, instead = tuple(one.name for one in stated), "the file", ""
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = " and ".join("x".join(map(str, shape[1:])) for shape in shapes)
        raise InputShapeError(
            f"--input-shape: inputs of {sizes}, expected one height and width; give all inputs one size"
        )
    channels: tuple[int, ...] | None = tuple(shape[0] for shape in shapes)
    told = _channels(stated)
    if not shapes and needed > 1 and len(told) == needed:
        channels = told
    elif not shapes and needed > 1 and isinstance(examples, DatasetExamples):
        channels = channels_together(examples, needed)
    count = len(channels or (0,))
    if needed > 1 and count < needed:
        raise InputShapeError(
            f"{who} takes {needed} inputs ({', '.join(names[:needed])}), got {count if shapes else 'no'} "
            f"--input-shape; {_AGAIN}, or {_TOGETHER}{instead}"
        )
    if count > max(1, len(names)) and not takes_any_number(model):
        raise InputShapeError(
            f"--input-shape is given {count} times, and {who} takes {len(names)} ({', '.join(names)}); give it once "
            "for each"
        )
    return Inputs(input_names(model, count), channels) if channels and count > 1 else None


def stated_shape(stated: Sequence[StatedInput]) -> tuple[int | None, int | None, int | None]:
    """What a file says of its inputs `(C, H, W)`, side by side along the channels; None where it does not."""
    if not stated:
        return None, None, None
    channels = _channels(stated)
    height, width = (next((one.shape[axis] for one in stated if one.shape[axis]), None) for axis in (1, 2))
    return sum(channels) if len(channels) == len(stated) else None, height, width


def _channels(stated: Sequence[StatedInput]) -> tuple[int, ...]:
    """Of those that say them."""
    return tuple(one.shape[0] for one in stated if one.shape[0] is not None)


def prepared_channels(inputs: Inputs, options: ConversionOptions) -> int:
    """Channels of the inputs that `--mean`, `--std` and `--preset` are for; of the first picture where none fit."""
    numbers = options.mean or options.std
    wanted = 3 if options.preset is not None else len(numbers) if numbers else None
    pictures = [count for count in inputs.channels if count in MODES]
    return wanted if wanted in pictures else next(iter(pictures), 3)


def several_transform(transform: TrainTransform, inputs: Inputs) -> SeveralTransform:
    """Each input prepared as `transform` prepares one, in its own channels.

    Mean and standard deviation are for inputs of as many channels. What is no picture (of neither 1 nor 3 channels) has
    to be given as it goes in.
    """
    common = transform.preprocessing

    def of(channels: int) -> Preprocessing:
        if channels == common.channels or channels not in MODES:
            return common
        return Preprocessing(channels=channels, size=common.size, preset=common.preset)

    each = tuple(replace(transform, preprocessing=of(channels)) for channels in inputs.channels)
    return SeveralTransform(each, inputs.channels)


def refuse_targets(options: ConversionOptions) -> None:
    """Raise `InputShapeError` for what goes with networks of one input alone."""
    given = [f"--{name.replace('_', '-')}" for name in ("target_data",) if getattr(options, name) is not None]
    given += ["--scale"] if options.training.scale is not None else []
    if given:
        raise InputShapeError(
            f"{given[0]} goes with networks of one input, and this one is given several; leave it out"
        )
