"""Fine-tuning within a conversion: from the fitted student, or a checkpoint of an earlier run, to the trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.batches import BatchStream
from vfconvert.data.restoration import RestorationTransform
from vfconvert.errors import NoImagesError, TrainingError
from vfconvert.fitting.sweep import Fitted
from vfconvert.nn.flattened import flattened_convs
from vfconvert.options import ConversionOptions
from vfconvert.plan_file import write_plan
from vfconvert.preparation import Prepared
from vfconvert.reporting.report import TrainingReport
from vfconvert.tasks.structure import main_tensor, varies
from vfconvert.tasks.task import TargetsKind, Task, task_of
from vfconvert.training.evaluating import answers
from vfconvert.training.job import Job
from vfconvert.training.loop import Trained, train
from vfconvert.training.objective import Features
from vfconvert.training.ranks import Ranks
from vfconvert.training.watching import Log, Silent, Watcher
from vfconvert.training_options import TrainingOptions
from vfconvert.tuning_start import DONE, PLAN, Start, folder_of, identity_of

_SHOWN = 16  # images that tell what a network returns


def tune(
    start: Start, prepared: Prepared, options: ConversionOptions, ranks: Ranks, watcher: Watcher | None
) -> tuple[Fitted, TrainingReport]:
    """Train the start's student. Raises `TrainingError`, the errors of the data, and `TrainingInterrupted`."""
    job = _job(start, prepared, options, ranks)
    begun = start.state.step if start.state is not None else 0
    told: Watcher = Silent()
    if ranks.first and job.folder is not None:
        log = Log(job.folder, begun)
        (job.folder / DONE).unlink(missing_ok=True)
        write_plan(
            start.plan,
            job.folder / PLAN,
            source_sha256=prepared.loaded.sha256,
            linear=bool(flattened_convs(prepared.teacher)),
        )
        told = Told(log, options.training.tensorboard, watcher)
    trained = train(job, told, start.state)
    fitted = Fitted(
        model=trained.model,
        unexplained=start.fitted.unexplained,
        seconds={**start.fitted.seconds, "train": trained.seconds},
        notes=start.fitted.notes,
    )
    return fitted, _report(job, trained, begun)


class Told:
    """Passes on what a run tells: to the log, to TensorBoard where it is asked for, to the screen."""

    def __init__(self, log: Log, board: Path | None, watcher: Watcher | None) -> None:
        from vfconvert.training.watching import Board

        self._log, self._board = log, Board(board) if board is not None else None
        self._watcher = watcher if watcher is not None else Silent()

    def step(self, step: int, steps: int, loss: float, rate: float, images_per_second: float) -> None:
        """Of that number, from 1."""
        self._write({"step": step, "loss": loss, "rate": rate, "images_per_second": round(images_per_second, 1)})
        self._watcher.step(step, steps, loss, rate, images_per_second)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each validation."""
        self._write(record)
        self._watcher.epoch(record)

    def note(self, line: str) -> None:
        """Something that a person should know."""
        self._log.write({"note": line})
        self._watcher.note(line)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._log.write(entry)
        if self._board is not None:
            self._board.write(entry)


def _job(start: Start, prepared: Prepared, options: ConversionOptions, ranks: Ranks) -> Job:
    training, source = options.training, prepared.source
    examples, transform = source.examples, source.transform
    if examples is None or transform is None:
        raise NoImagesError("--epochs trains on images: give --data; synthetic ones are too few to train on")
    split = source.split(options, len(examples))
    teacher = prepared.teacher
    images, target = _some(prepared)
    with torch.no_grad():
        vary = varies(teacher(images.clone()))
        layers = tuple(decision.norm or decision.layer for decision in start.plan.converted)
        features = _per_image(teacher, images, layers) if training.feature_weight or vary else ()
        task = _task(answers(teacher, images, features if vary else ()), target, prepared, training)
    common: dict[str, Any] = {
        "workers": training.workers,
        "rank": ranks.rank,
        "world": ranks.world,
        "most_unreadable": training.most_unreadable,
    }
    whole = isinstance(transform, RestorationTransform)  # images of a restoration are of any size
    if training.label_weight and task.name == "distil":
        raise TrainingError(
            "--label-weight needs labels of the network's own classes, clean images or masks: give --data with a "
            "subfolder for each class, or --target-data"
        )
    return Job(
        teacher=teacher,
        student=start.fitted.model,
        task=task,
        training=BatchStream(
            examples,
            split.calibration,
            transform,
            batch=training.batch,
            seed=options.seed,
            views=training.views,
            **common,
        ),
        validation=BatchStream(
            examples,
            split.choosing,
            transform,
            batch=ranks.world if whole else training.batch,
            seed=options.seed,
            shuffle=False,
            train=False,
            **common,
        ),
        options=training,
        example=images,
        seed=options.seed,
        device=prepared.device,
        features=features,
        vary=vary,
        identity=identity_of(prepared, options),
        notes={"unexplained": start.fitted.unexplained, "seconds": start.fitted.seconds},
        folder=folder_of(options),
        ranks=ranks,
    )


def _task(outputs: Any, target: Tensor | None, prepared: Prepared, training: TrainingOptions) -> Task:
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


def _per_image(teacher: nn.Module, images: Tensor, names: Sequence[str]) -> tuple[str, ...]:
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
    target = source.transform(*source.examples.read(indices[0]), 0, False)[1]
    return torch.stack([source.read(index) for index in indices]).to(prepared.device), target


def _report(job: Job, trained: Trained, begun: int) -> TrainingReport:
    options = trained.options
    return TrainingReport(
        task=job.task.name,
        metric=job.task.metrics[0],
        higher_is_better=job.task.higher_is_better,
        optimizer=options.optimizer,
        rate=options.highest_rate,
        norms=options.norms,
        batch=options.batch,
        processes=job.ranks.world,
        epochs=trained.epochs,
        losses=trained.losses,
        steps=trained.steps,
        resumed_from=begun,
        best_epoch=trained.best_epoch,
        norms_estimated=trained.norms_estimated,
        unreadable=tuple(sorted({**job.training.unreadable, **job.validation.unreadable})),
        seconds=trained.seconds,
        folder=str(job.folder),
    )
