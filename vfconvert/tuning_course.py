"""What a fine-tuning needs besides a student: looked at before the fit, which takes longer than to find it wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import BatchStream
from vfconvert.data.restoration import RestorationTransform
from vfconvert.errors import NoImagesError, TrainingError
from vfconvert.options import ConversionOptions
from vfconvert.planning import Plan
from vfconvert.preparation import Prepared
from vfconvert.tasks.structure import main_tensor, varies
from vfconvert.tasks.task import TargetsKind, Task, task_of
from vfconvert.training.evaluating import answers
from vfconvert.training.learner import check_precision
from vfconvert.training.objective import Features
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import check_board
from vfconvert.training_options import TrainingOptions

_SHOWN = 16  # images that tell what a network returns


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """The task, the batches, and some images `(N, C, H, W)` with the target of the first of them.

    Whether the teacher's outputs `vary` in number: then the task is about the outputs of candidates for conversion.
    """

    task: Task
    target: Tensor | None
    training: BatchStream
    validation: BatchStream
    images: Tensor
    vary: bool


def course_of(prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Course:
    """That of a run. Raises `TrainingError` and the errors of the data for what cannot be trained so."""
    training, source = options.training, prepared.source
    examples, transform = source.examples, source.transform
    if examples is None or transform is None:
        raise NoImagesError("--epochs trains on images: give --data; synthetic ones are too few to train on")
    check_precision(training.precision, prepared.device)
    if training.tensorboard is not None and ranks.first:
        check_board()
    common: dict[str, Any] = {
        "workers": training.workers,
        "rank": ranks.rank,
        "world": ranks.world,
        "most_unreadable": training.most_unreadable,
    }
    split = source.split(options, len(examples))
    whole = isinstance(transform, RestorationTransform)  # images of a restoration are of any size
    batches = BatchStream(
        examples, split.calibration, transform, batch=training.batch, seed=options.seed, views=training.views, **common
    )
    judging = BatchStream(
        examples,
        split.choosing,
        transform,
        batch=ranks.world if whole else training.batch,
        seed=options.seed,
        shuffle=False,
        train=False,
        **common,
    )
    images, target = _some(prepared)
    with torch.no_grad():
        vary = varies(prepared.teacher(images.clone()))
        layers = names_of(prepared.plan)  # of which a search may take some
        features = per_image(prepared.teacher, images, layers) if training.feature_weight or vary else ()
    task = task_about(features if vary else (), images, target, prepared, training)
    if training.label_weight and task.name == "distil":
        raise TrainingError(
            "--label-weight needs labels of the network's own classes, clean images or masks: give --data with a "
            "subfolder for each class, or --target-data"
        )
    return Course(task=task, target=target, training=batches, validation=judging, images=images, vary=vary)


def names_of(plan: Plan) -> tuple[str, ...]:
    """The modules whose outputs are matched: the converted layers, or the norms that follow them."""
    return tuple(decision.norm or decision.layer for decision in plan.converted)


@torch.no_grad()
def task_about(
    features: Sequence[str], images: Tensor, target: Tensor | None, prepared: Prepared, training: TrainingOptions
) -> Task:
    """The task of the network's outputs for images, or of those of some modules. Raises `TrainingError`."""
    outputs = answers(prepared.teacher, images, features)
    kinds: dict[int | None, TargetsKind] = {None: "none", 0: "classes", 2: "masks", 3: "images"}
    kind = kinds[None if target is None else target.dim()]
    main, classes = main_tensor(outputs), prepared.source.examples.classes if prepared.source.examples else 0
    if training.task is None and kind == "classes" and (main is None or main.dim() != 2 or main.shape[1] != classes):
        kind = "none"  # subfolders that are not the network's classes are no labels of it
    prepared_as = getattr(prepared.source.transform, "preprocessing", None)
    mean, std = (getattr(prepared_as, key, None) for key in ("mean", "std"))
    if (mean is None) != (std is None):
        mean, std = mean or (0.0,) * len(std or ()), std or (1.0,) * len(mean or ())
    return task_of(training.task, outputs, kind, training.scale, mean=mean, std=std)


@torch.no_grad()
def per_image(teacher: nn.Module, images: Tensor, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the modules whose output has a row for each image; others see regions that the network finds.

    Raises `TrainingError` where there is none.
    """
    watched = Features(teacher, names)
    try:
        teacher(images.clone())
    finally:
        watched.remove()
    found = tuple(name for name in names if name in watched.values and len(watched.values[name]) == len(images))
    if not found:
        raise TrainingError(
            "no converted layer sees whole images, so no features can be matched; leave --feature-weight out"
        )
    return found


def _some(prepared: Prepared) -> tuple[Tensor, Tensor | None]:
    """A few images `(N, C, H, W)` as the network is given them, and the target of the first."""
    source = prepared.source
    if source.examples is None or source.transform is None:
        raise ValueError("there are no images to read")
    indices = source.readable(range(min(len(source.examples), 4 * _SHOWN)), 1.0)[:_SHOWN]
    first = source.examples.read(indices[0])
    source.transform(*first, 0, True)  # what training adds may not go with such images
    target = source.transform(*first, 0, False)[1]
    return torch.stack([source.read(index) for index in indices]).to(prepared.device), target
