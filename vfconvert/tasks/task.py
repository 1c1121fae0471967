"""A task: what outputs are compared with, by which metrics and loss; and which task fits a network and its data."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from vfconvert.errors import TrainingError
from vfconvert.tasks.classification import Classification
from vfconvert.tasks.distil import Distil
from vfconvert.tasks.meter import Meter
from vfconvert.tasks.restoration import Restoration
from vfconvert.tasks.segmentation import Segmentation
from vfconvert.tasks.structure import main_tensor

TargetsKind: TypeAlias = Literal["none", "classes", "images", "masks"]

NAMES = ("classification", "restoration", "segmentation", "distil")
_AXES = {"classification": ("classes", 2), "restoration": ("images", 4), "segmentation": ("masks", 4)}


class Task(Protocol):
    """What a network is for. Tasks are frozen data and can be sent to other processes."""

    @property
    def name(self) -> str:
        """One of `NAMES`."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the meter tells, the primary one first.

        In percent "top1", "top5", "miou" and "agreement", in dB "psnr", without a unit "ssim" and "error".
        """
        ...

    @property
    def higher_is_better(self) -> bool:
        """Of the primary metric."""
        ...

    @property
    def pixelwise(self) -> bool:
        """Whether maps `(B, K, H, W)` are logits of every pixel, for `distillation_loss`."""
        ...

    def supervised_loss(self, outputs: Any, targets: Tensor) -> Tensor | None:
        """A scalar with a gradient, or None where the task has no use for labels."""
        ...

    def meter(self, device: torch.device) -> Meter:
        """A fresh meter, whose sums are kept on the device."""
        ...


def task_of(
    name: str | None,
    example_output: Any,
    targets_kind: TargetsKind,
    scale: int | None = None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    label_smoothing: float = 0.0,
) -> Task:
    """The task called `name`, or without a name the one that outputs like the example and the data's targets suggest.

    Classification takes rows of logits `(B, K)` and classes, restoration maps `(B, C, H, W)` and images, segmentation
    maps `(B, K, H, W)`, alone or named "out" or "logits", and masks; everything else is `distil`. Restoration leaves
    out a border of `scale` pixels, none for 1, and undoes `mean` and `std`; classification smooths its labels.
    Raises `TrainingError` for a name that is unknown or does not fit, and for outputs that hold nothing to match;
    `VaryingOutputError` where these vary in size: then the example is to be the features of the converted blocks.
    """
    if name is not None and name not in NAMES:
        raise TrainingError(f"there is no task {name!r}; choose one of {', '.join(NAMES)}")
    main = main_tensor(example_output)
    fitting = [task for task, needs in _AXES.items() if _fits(main, targets_kind, *needs)] + ["distil"]
    if name is not None and name not in fitting:
        kind, axes = _AXES[name]
        got = "no floating-point tensor" if main is None else f"outputs {tuple(main.shape)}"
        labels = "no labels" if targets_kind == "none" else targets_kind
        raise TrainingError(
            f"the task {name} does not fit {got} and data with {labels}: it needs outputs of {axes} axes, and {kind}; "
            f"choose {' or '.join(fitting)}"
        )
    chosen = fitting[0] if name is None else name
    if chosen == "distil" or main is None:
        return Distil.of(example_output)
    if chosen == "restoration":
        return Restoration(shave=scale if scale is not None and scale > 1 else 0, mean=mean, std=std)
    if chosen == "segmentation":
        return Segmentation(classes=main.shape[1])
    return Classification(classes=main.shape[1], label_smoothing=label_smoothing)


def _fits(main: Tensor | None, targets_kind: TargetsKind, kind: str, axes: int) -> bool:
    if main is None or targets_kind != kind or main.dim() != axes:
        return False
    return kind == "images" or main.shape[1] > 1  # one class is no choice
