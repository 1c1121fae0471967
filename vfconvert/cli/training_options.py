"""The options of the fine-tuning, one for each field of `TrainingOptions`; click calls them "training_…"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from vfconvert.cli.group import SectionOption
from vfconvert.cli.values import NUMBERS
from vfconvert.combinations import TRAINING_PREFIX
from vfconvert.training_options import NORMS, OPTIMIZERS, PRECISIONS, TrainingOptions

_TASKS = ("classification", "restoration", "segmentation", "distil")
_DEFAULTS = {field.name: field.default for field in fields(TrainingOptions)}
_FOLDER = click.Path(path_type=Path, file_okay=False)


def _option(flag: str, name: str, *, help: str, section: str = "Fine-tuning", **settings: Any) -> Callable[[Any], Any]:
    default = _DEFAULTS[name]
    if default is not None and not settings.get("is_flag"):
        settings.setdefault("show_default", True)
    return click.option(
        flag, f"{TRAINING_PREFIX}{name}", cls=SectionOption, section=section, default=default, help=help, **settings
    )


_data = partial(_option, section="Images to train on")
_run = partial(_option, section="Runs of fine-tuning")

TRAINING: tuple[Callable[[Any], Any], ...] = (
    _option("--epochs", "epochs", type=int, metavar="N", help="Fine-tune for so many passes over --data; 0: not."),
    _option("--batch", "batch", type=int, metavar="N", help="Images of a step, over all processes."),
    _option("--optimizer", "optimizer", type=click.Choice(OPTIMIZERS), help="How weights are moved."),
    _option(
        "--rate",
        "rate",
        type=float,
        metavar="X",
        help="Highest rate, after the warm-up; then it falls along a cosine.  "
        "[default: by optimizer, batch, --norms, steps]",
    ),
    _option("--momentum", "momentum", type=float, metavar="X", help="Of SGD."),
    _option("--weight-decay", "weight_decay", type=float, metavar="X", help="Not of norms, scales and biases."),
    _option("--warm-up", "warm_up", type=float, metavar="SHARE", help="Share of the steps over which the rate rises."),
    _option("--clip", "clip", type=float, metavar="X", help="Bound on the norm of all gradients; 0: none."),
    _option("--temperature", "temperature", type=float, metavar="X", help="By which logits are softened."),
    _option(
        "--feature-weight",
        "feature_weight",
        type=float,
        metavar="X",
        help="Weight of matching the outputs of converted layers beside the network's.",
    ),
    _option("--label-weight", "label_weight", type=float, metavar="X", help="Weight of the labels' own loss."),
    _option("--norms", "norms", type=click.Choice(NORMS), help="BatchNorm: statistics of each batch, or frozen."),
    _option("--ema", "ema", type=float, metavar="X", help="Decay of averaged weights, which then count; 0: none."),
    _option("--patience", "patience", type=int, metavar="N", help="Stop after N epochs without a better metric."),
    _option(
        "--train-precision",
        "precision",
        type=click.Choice(PRECISIONS),
        help="In which networks compute; auto: bf16 where the device has units for it and the network is right in it.",
    ),
    _option(
        "--channels-last/--no-channels-last",
        "channels_last",
        help="Memory format to train in.  [default: with 16 bits where the network can]",
    ),
    _option("--compile", "compile", is_flag=True, help="Train by torch.compile."),
    _data("--task", "task", type=click.Choice(_TASKS), help="What is measured.  [default: by outputs and labels]"),
    _data(
        "--scale",
        "scale",
        type=int,
        metavar="N",
        help="Super-resolution: inputs are --data made N times smaller, and enlarged again.",
    ),
    _data("--patch", "patch", type=int, metavar="PIXELS", help="Train restoration on squares of so many pixels."),
    _data("--views", "views", type=int, metavar="N", help="Random views of each image in an epoch."),
    _data("--padding", "padding", type=int, metavar="PIXELS", help="Shift images by up to so many pixels."),
    _data(
        "--crop-scale",
        "crop_scale",
        type=NUMBERS,
        metavar="LEAST,MOST",
        help="Train on random parts of images, of such shares of their area.",
    ),
    _data("--flip/--no-flip", "flip", help="Mirror half of the images."),
    _data("--workers", "workers", type=int, metavar="N", help="Processes that decode images."),
    _data("--most-unreadable", "most_unreadable", type=float, metavar="SHARE", help="Of images that may be skipped."),
    _run(
        "--checkpoints",
        "checkpoints",
        type=_FOLDER,
        metavar="FOLDER",
        help="Where the checkpoint and the log are kept.  [default: the output's name with .training]",
    ),
    _run("--checkpoint-minutes", "minutes", type=float, metavar="X", help="Between checkpoints in an epoch."),
    _run("--resume", "resume", is_flag=True, help="Go on from the last checkpoint, if there is one."),
    _run("--finish", "finish", is_flag=True, help="With --resume: no further step; write the best weights so far."),
    _run("--tensorboard", "tensorboard", type=_FOLDER, metavar="FOLDER", help="Write TensorBoard's files there."),
)


def training_of(values: dict[str, Any]) -> TrainingOptions:
    """Take the values of these options out of those of a command. Raises `TrainingError`."""
    names = [field.name for field in fields(TrainingOptions)]
    taken = {name: values.pop(f"{TRAINING_PREFIX}{name}") for name in names}
    if taken["crop_scale"] is not None:
        taken["crop_scale"] = tuple(taken["crop_scale"])
    return TrainingOptions(**taken)
